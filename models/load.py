"""Load a checkpoint directory so that nothing is missing, and save one that `from_pretrained` reads.

transformers only warns when a checkpoint lacks a tensor or holds one too many, and then trains on random weights; here that is an error.
Code that comes with a checkpoint is never run. `save_checkpoint` keeps the names on disk that the model's source had (transformers renames
between disk and memory, see `tests/models/test_load.py`), so a checkpoint and its fine-tuned child have the same names.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FAULTS = ("missing", "unexpected", "mismatched")
SHOWN = 3


def load_model(directory: str | Path, dtype: "torch.dtype | str | None" = None) -> "PreTrainedModel":
    """The model in `directory`, on the CPU, in `dtype` (None: as stored), in evaluation mode.

    Takes image-text-to-text models and causal language models; where experts lie beside the weights, the model is a routed one (see
    `models/experts.py`). Raises InputError where the directory is no checkpoint, wants its own code, is of another kind, or its tensors
    are not exactly the model's (names and shapes).
    """
    from safetensors import SafetensorError

    from models.experts import attach_experts, has_experts

    kind = class_for(directory)
    # Shape mismatches are let through here only to be refused below with the other faults, in one message.
    options = {"dtype": "auto" if dtype is None else dtype, "trust_remote_code": False, "ignore_mismatched_sizes": True}
    try:
        model, report = kind.from_pretrained(directory, output_loading_info=True, **options)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{directory}: its weights cannot be read: {first_line(error)}; copy the checkpoint again") from error
    faults = [describe_fault(fault, report[f"{fault}_keys"]) for fault in FAULTS if report[f"{fault}_keys"]]
    if not faults and was_untied(model):
        faults = ["lm_head and the token embeddings differ, although the config ties them"]
    if faults:
        raise InputError(f"{directory}: the tensors do not fit {type(model).__name__}: {'; '.join(faults)}; save the checkpoint again")
    if has_experts(Path(directory)):
        attach_experts(model, Path(directory))
    return model


def class_for(directory: str | Path) -> Any:
    """The Auto* class that loads the model in `directory`; InputError where there is none."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    refuse_own_code(directory)
    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise InputError(f"{directory}: its config.json fits no model that transformers has: {first_line(error)}") from error
    kinds: list[Any] = [AutoModelForImageTextToText, AutoModelForCausalLM]
    found = next((kind for kind in kinds if type(config) in kind._model_mapping), None)
    if found is None:
        raise InputError(
            f"{directory}: model type {config.model_type!r} is neither an image-text-to-text model nor a causal language model; "
            "name a checkpoint of one of these kinds"
        )
    return found


def was_untied(model: "PreTrainedModel") -> bool:
    """Whether the config ties input and output embeddings, but the checkpoint held two different ones (transformers only warns)."""
    given, told = model.get_input_embeddings(), model.get_output_embeddings()
    tied = getattr(model.config, "tie_word_embeddings", False)
    return bool(tied and given is not None and told is not None and given.weight is not told.weight)


def describe_fault(kind: str, keys: Any) -> str:
    """One clause such as "2 missing, e.g. 'lm_head.weight'"."""
    names = sorted(key if isinstance(key, str) else str(key[0]) for key in keys)
    return f"{len(names)} {kind}, e.g. {', '.join(repr(name) for name in names[:SHOWN])}"


def refuse_own_code(directory: str | Path) -> None:
    """Raise InputError unless `directory` is a checkpoint that loads without code of its own."""
    path = Path(directory) / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(
            f"{directory}: no config.json, so this is no checkpoint; name a directory that from_pretrained can read"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error}); copy the checkpoint again") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: holds {type(config).__name__}, not an object; copy the checkpoint again")
    if "auto_map" in config:
        raise InputError(
            f"{path}: 'auto_map' asks to run code that comes with the checkpoint, which is never done here; "
            "convert it to a model class that transformers has, and remove auto_map"
        )


PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)
"""Any of these says how text or images are put to the model."""


def load_processor(directory: str | Path) -> Any:
    """The processor in `directory` (for a text-only checkpoint its tokenizer).

    Raises InputError where there is none, or where its class needs a package that is not installed (torchvision for video).
    """
    from transformers import AutoProcessor

    refuse_own_code(directory)
    place = Path(directory)
    if place.is_dir() and not any((place / name).exists() for name in PROCESSOR_FILES):
        raise InputError(
            f"{directory}: has no processor and no tokenizer; put those of the model it comes from beside its config.json "
            "(processor_config.json or preprocessor_config.json, tokenizer.json, tokenizer_config.json)"
        )
    try:
        return AutoProcessor.from_pretrained(directory, trust_remote_code=False)
    except ImportError as error:
        raise InputError(f"{directory}: its processor needs a package that is not installed: {first_line(error)}") from error
    except (OSError, ValueError, AttributeError, TypeError) as error:
        hint = needs_torchvision(directory)
        raise InputError(f"{directory}: its processor cannot be loaded{hint or f': {first_line(error)}'}") from error


def needs_torchvision(directory: str | Path) -> str | None:
    """What to do where the checkpoint's processor takes video and torchvision is not installed, else None."""
    from transformers.utils import is_torchvision_available

    names = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
    held = [path.read_text() for name in names if (path := Path(directory) / name).exists()]
    if is_torchvision_available() or not any("video" in text.lower() for text in held):
        return None
    return ": it takes video, which needs torchvision; pip install torchvision"


def first_line(error: Exception) -> str:
    """The first line that says something in an error of many lines."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def save_checkpoint(model: "PreTrainedModel", processor: Any, directory: str | Path) -> None:
    """Write model and processor to `directory` as a plain Hugging Face checkpoint, readable by whoever may read the directory.

    Tensor names on disk are those of the checkpoint the model was loaded from (for a model made from a config: the names its family uses
    on the hub). A routed model's original is the checkpoint, its experts lie beside it. Not atomic: write to a temporary neighbour and
    `publish_directory` it.
    """
    from models.experts import experts_set_aside, routed_mlps, save_experts

    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    with experts_set_aside(model):
        model.save_pretrained(target)
    if routed_mlps(model):
        save_experts(model, target)
    processor.save_pretrained(target)
    mask = os.umask(0)
    os.umask(mask)
    for path in sorted(target.rglob("*")):
        if path.is_file():
            path.chmod(0o666 & ~mask)
