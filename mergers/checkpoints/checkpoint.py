"""A checkpoint directory seen from outside: its config and where each tensor's bytes lie. Reads headers and JSON, never weights.

What a checkpoint may be: a Hugging Face directory with `config.json` and either `model.safetensors` or `model.safetensors.index.json` plus
its shards; where pickles are allowed, also `pytorch_model.bin`, whole or sharded, and a single file that torch.save wrote (Lightning's
`.ckpt`). All else is refused with a sentence that says what to do instead.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from mergers.checkpoints.header import MAX_TENSORS, TensorEntry, read_header, refuse_bomb
from mergers.checkpoints.pickles import ALLOW, PICKLED, read_pickle

MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True)
class Format:
    """How weights lie in a directory: in one file, or in several that an index lists."""

    single: str
    index: str
    shard: re.Pattern[str]
    example: str
    read: Callable[[Path], dict[str, TensorEntry]]


SAFETENSORS = Format(
    "model.safetensors",
    "model.safetensors.index.json",
    re.compile(r"^[A-Za-z0-9._-]+\.safetensors\Z"),
    "model-00001-of-00002.safetensors",
    read_header,
)
PICKLES = Format(
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    re.compile(r"^[A-Za-z0-9._-]+\.bin\Z"),
    "pytorch_model-00001-of-00002.bin",
    read_pickle,
)
SINGLE, INDEX = SAFETENSORS.single, SAFETENSORS.index


@dataclass(frozen=True)
class Checkpoint:
    """A readable checkpoint: `tensors` maps each name on disk to its bytes; `config` is the parsed config.json ({} if there is none)."""

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]
    files: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.tensors.values())


def read_checkpoint(path: Path, allow_pickle: bool = False) -> Checkpoint:
    """Open the checkpoint directory, or with `allow_pickle` the single file, `path`.

    Raises InputError, naming the file, for anything incomplete, damaged or of another kind, and for pickles that were not allowed: those
    are not even looked into.
    """
    path = Path(os.path.abspath(path))
    if path.is_file() and path.suffix in PICKLED:
        if not allow_pickle:
            raise InputError(f"{path} holds pickled weights; pickles can run code, so they are read only where you allow it: {ALLOW}")
        return Checkpoint(path, {}, dict(sorted(not_empty(path, read_pickle(path)).items())), (path.name,))
    if not path.is_dir():
        raise InputError(f"{path} is not a directory; a checkpoint is a directory with config.json and safetensors files")
    config = read_config(path)
    form = format_of(path, allow_pickle)
    files = weight_files(path, form)
    tensors: dict[str, TensorEntry] = {}
    for name in files:
        for tensor, entry in form.read(inside(path, name)).items():
            if tensor in tensors:
                raise InputError(
                    f"{path}: tensor '{tensor}' is in {Path(tensors[tensor].path).name} and in {name}; each may be in one file only"
                )
            tensors[tensor] = entry
    not_empty(path, tensors)
    if (path / form.index).exists():
        check_index(path, form, tensors)
    return Checkpoint(path, config, dict(sorted(tensors.items())), files)


def read_config(path: Path) -> dict[str, Any]:
    """The config.json of a directory, {} if there is none; InputError for a model that brings its own code."""
    config = read_json(path, "config.json") if (path / "config.json").exists() else {}
    if "auto_map" in config:
        raise InputError(
            f"{path / 'config.json'} says that the model's code lies beside it (auto_map); such code is neither run nor copied. If your "
            f"transformers knows model_type {config.get('model_type')!r} itself, remove auto_map from config.json"
        )
    return config


def not_empty(path: Path, tensors: dict[str, TensorEntry]) -> dict[str, TensorEntry]:
    """`tensors`, if there are any; InputError if not."""
    if not tensors:
        raise InputError(f"{path} holds no tensors")
    return tensors


def format_of(path: Path, allow_pickle: bool) -> Format:
    """How the weights in a directory are kept: safetensors where there are any. InputError where there is nothing that may be read."""
    if holds(path, SAFETENSORS):
        return SAFETENSORS
    if allow_pickle and holds(path, PICKLES):
        return PICKLES
    raise InputError(no_weights(path, allow_pickle))


def holds(path: Path, form: Format) -> bool:
    """Whether a directory holds a model's weights in a format."""
    return (path / form.single).exists() or (path / form.index).exists()


def weight_files(path: Path, form: Format) -> tuple[str, ...]:
    """Names of the files that hold the checkpoint's weights, sorted."""
    if not (path / form.index).exists():
        return (form.single,)
    names = sorted(set(weight_map(path, form).values()))
    if (path / form.single).exists() and form.single not in names:
        raise InputError(
            f"{path} holds {form.single} and an index that names other files ({names[0]}, ...): two models in one directory, and loaders "
            "differ in which they take; remove the stale one"
        )
    missing = [name for name in names if not (path / name).exists()]
    if missing:
        raise InputError(
            f"{path} lacks {len(missing)} of {len(names)} shards that its index names, e.g. {missing[0]}; copy or download it again"
        )
    return tuple(names)


def weight_map(path: Path, form: Format) -> dict[str, str]:
    """The index's tensor -> file table, every file name checked to be a plain name."""
    found = read_json(path, form.index).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise InputError(f"{path / form.index} has no weight_map; write the checkpoint again")
    for name in found.values():
        if not isinstance(name, str) or not form.shard.match(name):
            raise InputError(f"{path / form.index} names the file {name!r}; only plain names like {form.example} are followed")
    return found


def check_index(path: Path, form: Format, tensors: Mapping[str, TensorEntry]) -> None:
    """Raise InputError unless the index says of every tensor what the files themselves say."""
    mapped = weight_map(path, form)
    for name in sorted(mapped.keys() | tensors.keys()):
        held = Path(tensors[name].path).name if name in tensors else "no file"
        if mapped.get(name) != held:
            raise InputError(
                f"{path / form.index} says that tensor '{name}' is in {mapped.get(name, 'no file')}, the files say it is in {held}; the "
                "index does not belong to these files: copy or download the checkpoint again"
            )
    metadata = read_json(path, form.index).get("metadata")
    claimed = metadata.get("total_size") if isinstance(metadata, dict) else None
    actual = sum(entry.nbytes for entry in tensors.values())
    once = sum(nbytes for *_, nbytes in {(entry.path, entry.start, entry.nbytes) for entry in tensors.values()})
    if claimed not in (None, actual, once):  # pickles may hold one storage under several names, and writers count it once or each time
        raise InputError(
            f"{path / form.index} gives total_size {claimed}, the tensors have {actual} bytes; the index does not belong to these files. "
            "If you know they are right, correct or remove total_size"
        )


def no_weights(path: Path, allow_pickle: bool = False) -> str:
    """Why there is nothing to read in `path`, and what to do."""
    names = sorted(entry.name for entry in path.iterdir())
    if "adapter_model.safetensors" in names or "adapter_config.json" in names:
        return (
            f"{path} is a LoRA adapter, not a whole model; where a source is named, write it after its base, as in base+{path.name}, and "
            "it is merged into it on the fly"
        )
    pickles = [name for name in names if name.endswith(PICKLED) and name != "training_args.bin"]
    if pickles and not allow_pickle:
        return (
            f"{path} holds only pickled weights ({pickles[0]}); pickles can run code, so they are read only where you allow it: {ALLOW}. "
            "Or load the model with transformers and save it again with save_pretrained, which writes safetensors"
        )
    if pickles:
        return f"{path} has neither {PICKLES.single} nor {PICKLES.index}, though it holds {pickles[0]}; name that file itself"
    others = [name for name in names if name.endswith(".safetensors")]
    if others:
        return (
            f"{path} has neither {SINGLE} nor {INDEX}, though it holds {others[0]}; rename the file, or add the index that names the shards"
        )
    return f"{path} holds no weights: neither {SINGLE} nor {INDEX} is in it"


def read_json(directory: Path, name: str, rows: int = MAX_TENSORS) -> dict[str, Any]:
    """A JSON object from a checkpoint directory; InputError if it is no such thing, or holds far more than a table of `rows` rows."""
    path = inside(directory, name)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes, more than {MAX_JSON_BYTES}; not a file that belongs to a checkpoint")
    data = path.read_bytes()
    refuse_bomb(path, data, rows)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); copy or download it again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object; copy or download it again")
    return value


def inside(directory: Path, name: str) -> Path:
    """`directory / name`, refused if it is a link that leaves the directory (a Hugging Face cache may link to its own blobs)."""
    path = directory / name
    home = directory.resolve()
    target = path.resolve()
    if not target.is_file():
        raise InputError(f"{path} is not a regular file, or a link to nothing; copy or download it again")
    allowed = (home, home.parent.parent / "blobs") if home.parent.name == "snapshots" else (home,)
    if not any(target.is_relative_to(root) for root in allowed):
        raise InputError(f"{path} is a link to {target}, outside its checkpoint; put the file itself there")
    return path
