"""A checkpoint directory seen from outside: its config and where each tensor's bytes lie. Reads headers and JSON, never weights.

What a checkpoint may be: a Hugging Face directory with `config.json` and either `model.safetensors` or `model.safetensors.index.json` plus
its shards. All else is refused with a sentence that says what to do instead.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from mergers.header import TensorEntry, read_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_NAME = re.compile(r"^[A-Za-z0-9._-]+\.safetensors$")
MAX_JSON_BYTES = 64 << 20


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


def read_checkpoint(path: Path) -> Checkpoint:
    """Open the checkpoint directory `path`. Raises InputError, naming the file, for anything incomplete, damaged or not safetensors."""
    path = Path(os.path.abspath(path))
    if not path.is_dir():
        raise InputError(f"{path} is not a directory; a checkpoint is a directory with config.json and safetensors files")
    config = read_json(path, "config.json") if (path / "config.json").exists() else {}
    if "auto_map" in config:
        raise InputError(
            f"{path / 'config.json'} says that the model's code lies beside it (auto_map); such code is neither run nor copied. If your "
            "transformers "
            f"knows model_type {config.get('model_type')!r} itself, remove auto_map from config.json"
        )
    files = weight_files(path)
    tensors: dict[str, TensorEntry] = {}
    for name in files:
        for tensor, entry in read_header(inside(path, name)).items():
            if tensor in tensors:
                raise InputError(
                    f"{path}: tensor '{tensor}' is in {Path(tensors[tensor].path).name} and in {name}; each may be in one file only"
                )
            tensors[tensor] = entry
    if not tensors:
        raise InputError(f"{path} holds no tensors")
    if (path / INDEX).exists():
        check_index(path, tensors)
    return Checkpoint(path, config, dict(sorted(tensors.items())), files)


def weight_files(path: Path) -> tuple[str, ...]:
    """Names of the files that hold the checkpoint's weights, sorted."""
    has_single = (path / SINGLE).exists()
    if not (path / INDEX).exists():
        if not has_single:
            raise InputError(no_weights(path))
        return (SINGLE,)
    names = sorted(set(weight_map(path).values()))
    if has_single and SINGLE not in names:
        raise InputError(
            f"{path} holds {SINGLE} and an index that names other files ({names[0]}, ...): two models in one directory, and loaders "
            "differ in which "
            f"they take; remove the stale one"
        )
    missing = [name for name in names if not (path / name).exists()]
    if missing:
        raise InputError(
            f"{path} lacks {len(missing)} of {len(names)} shards that its index names, e.g. {missing[0]}; copy or download it again"
        )
    return tuple(names)


def weight_map(path: Path) -> dict[str, str]:
    """The index's tensor -> file table, every file name checked to be a plain name."""
    found = read_json(path, INDEX).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise InputError(f"{path / INDEX} has no weight_map; write the checkpoint again")
    for name in found.values():
        if not isinstance(name, str) or not SHARD_NAME.match(name):
            raise InputError(f"{path / INDEX} names the file {name!r}; only plain names like model-00001-of-00002.safetensors are followed")
    return found


def check_index(path: Path, tensors: Mapping[str, TensorEntry]) -> None:
    """Raise InputError unless the index says of every tensor what the files' own headers say."""
    mapped = weight_map(path)
    for name in sorted(mapped.keys() | tensors.keys()):
        held = Path(tensors[name].path).name if name in tensors else "no file"
        if mapped.get(name) != held:
            raise InputError(
                f"{path / INDEX} says that tensor '{name}' is in {mapped.get(name, 'no file')}, the files say it is in {held}; the index "
                "does not "
                "belong to these files: copy or download the checkpoint again"
            )
    metadata = read_json(path, INDEX).get("metadata")
    claimed = metadata.get("total_size") if isinstance(metadata, dict) else None
    actual = sum(entry.nbytes for entry in tensors.values())
    if claimed is not None and claimed != actual:
        raise InputError(
            f"{path / INDEX} gives total_size {claimed}, the tensors have {actual} bytes; the index does not belong to these files. If "
            "you know "
            "they are right, correct or remove total_size"
        )


def no_weights(path: Path) -> str:
    """Why there is nothing to read in `path`, and what to do."""
    names = sorted(entry.name for entry in path.iterdir())
    if "adapter_model.safetensors" in names or "adapter_config.json" in names:
        return f"{path} is a LoRA adapter, not a whole model; merge it into its base first (PEFT's merge_and_unload), then save it"
    pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt")) and name != "training_args.bin"]
    if pickles:
        return (
            f"{path} holds only pickled weights ({pickles[0]}); pickles can run code and are not read. Load the model with transformers "
            "and save it "
            "again with save_pretrained, which writes safetensors"
        )
    others = [name for name in names if name.endswith(".safetensors")]
    if others:
        return (
            f"{path} has neither {SINGLE} nor {INDEX}, though it holds {others[0]}; rename the file, or add the index that names the shards"
        )
    return f"{path} holds no weights: neither {SINGLE} nor {INDEX} is in it"


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """A JSON object from a checkpoint directory; InputError if it is no such thing."""
    path = inside(directory, name)
    if path.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes, more than {MAX_JSON_BYTES}; not a file that belongs to a checkpoint")
    try:
        value = json.loads(path.read_bytes())
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
