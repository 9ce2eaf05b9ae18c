"""A model's names and shapes without its weights: what `plan` and `validate` count and check with, whatever the model's size.

A model on the `meta` device takes no memory. Its config.json alone makes it; where weights lie beside it, their headers are compared with
the model. Importing transformers takes seconds; after that a model of 8 billion weights takes a fraction of one.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import InputError
from models.load import FAULTS, class_for, describe_fault, first_line
from models.parts import count_weights, selected

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")


@dataclass(frozen=True)
class PartCounts:
    """How many weights a model has and how many of them learn, by selection. Tied weights count once."""

    learned: Mapping[str, int]
    total: int

    @property
    def trained(self) -> int:
        """All weights that learn."""
        return sum(self.learned.values())


def skeleton(directory: str | Path) -> "PreTrainedModel":
    """The model in `directory` on the `meta` device, in the dtype its config names: names and shapes, no weights.

    A directory with nothing but a config.json will do. Where it holds weights, InputError unless their tensors are exactly the model's
    (from their headers). Raises InputError as `class_for` does: no config, code of its own, a kind that is not supported.
    """
    place = Path(directory)
    if any(next(place.glob(pattern), None) for pattern in WEIGHTS):
        return fitted(place)
    import torch
    from transformers import AutoConfig

    kind = class_for(place)
    config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    try:
        with quiet(), torch.device("meta"):
            return kind.from_config(config, dtype=config.dtype or torch.float32, trust_remote_code=False)
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{place}: no model can be made from its config.json: {first_line(error)}; correct it") from error


def fitted(place: Path) -> "PreTrainedModel":
    """The model on `meta`, its tensors in the files compared by name and shape."""
    from safetensors import SafetensorError

    kind = class_for(place)
    options: dict[str, Any] = {"device_map": {"": "meta"}, "dtype": "auto", "trust_remote_code": False, "ignore_mismatched_sizes": True}
    try:
        with quiet():
            model, report = kind.from_pretrained(place, output_loading_info=True, **options)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{place}: its weights cannot be read: {first_line(error)}; copy the checkpoint again") from error
    faults = [describe_fault(fault, report[f"{fault}_keys"]) for fault in FAULTS if report[f"{fault}_keys"]]
    if faults:
        raise InputError(f"{place}: the tensors do not fit {type(model).__name__}: {'; '.join(faults)}; save the checkpoint again")
    return model


def count_parameters(directory: str | Path, parts: Sequence[str]) -> PartCounts:
    """How many weights of the model in `directory` learn when `parts` are trained; InputError as `skeleton` and `selected`."""
    return part_counts(skeleton(directory), parts)


def part_counts(model: "PreTrainedModel", parts: Sequence[str]) -> PartCounts:
    """How many weights of `model` learn when `parts` are trained; InputError for a part it lacks. Changes nothing."""
    return PartCounts(count_weights(model, selected(model, parts)), sum(weight.numel() for weight in model.parameters()))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from warning of what is checked here, and from drawing progress bars."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
