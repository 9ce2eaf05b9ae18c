"""Write a stage's model as its start was written, so that the two can be merged: the same tensor names and dtypes, the same other files."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from foundation.errors import InputError
from foundation.files import publish_directory
from models.load import save_checkpoint

INDEX = "model.safetensors.index.json"
FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""The dtypes that float32 holds exactly, so that a frozen weight comes back bit for bit."""


def weight_files(checkpoint: Path) -> list[Path]:
    """The safetensors files of a checkpoint, sorted; InputError where it has none."""
    index = checkpoint / INDEX
    names = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    files = sorted(checkpoint / name for name in names)
    if missing := [path.name for path in files if not path.exists()]:
        raise InputError(
            f"{checkpoint}: weights {', '.join(missing)} are missing; a stage starts from safetensors files, convert or copy it again"
        )
    return files


def stored_dtypes(checkpoint: Path) -> dict[str, str]:
    """The dtype of every tensor on disk, read from the headers alone."""
    found = {}
    for path in weight_files(checkpoint):
        with safe_open(path, framework="pt") as file:
            found.update({name: file.get_slice(name).get_dtype() for name in file.keys()})  # noqa: SIM118 (safe_open is no mapping)
    return found


def check_start(checkpoint: Path) -> None:
    """Refuse a start whose weights would not come back unchanged from float32."""
    for name, dtype in sorted(stored_dtypes(checkpoint).items()):
        if dtype.startswith("F") and dtype not in FLOATS:
            raise InputError(f"{checkpoint}: tensor {name!r} is {dtype}; a stage starts from {', '.join(FLOATS)} weights, convert it first")


def write_output(model: PreTrainedModel, processor: Any, start: Path, output: Path) -> None:
    """Publish `model` (float32) as `output`, complete or not at all. InputError where its tensor names are no longer those of `start`.

    Trained weights are rounded once, to the dtype their name has in `start`.
    """
    dtypes = stored_dtypes(start)
    wanted = {FLOATS[dtype] for dtype in dtypes.values() if dtype in FLOATS}
    temporary = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(model.to(next(iter(wanted))) if len(wanted) == 1 else model, processor, temporary)
    if len(wanted) > 1:
        cast_files(temporary, dtypes)
    refuse_other_tensors(temporary, start)
    keep_other_files(temporary, start)
    publish_directory(temporary, output)


def keep_other_files(checkpoint: Path, start: Path) -> None:
    """Put back every file beside the weights that `start` has too: training changes weights, and saving again might reword a file."""
    weights = {path.name for path in weight_files(checkpoint)} | {INDEX}
    for path in sorted(checkpoint.iterdir()):
        if path.name not in weights and (start / path.name).is_file():
            shutil.copyfile(start / path.name, path)


def cast_files(checkpoint: Path, dtypes: Mapping[str, str]) -> None:
    """Round each float tensor on disk to the dtype of its name in `dtypes`."""
    for path in weight_files(checkpoint):
        tensors = load_file(path)
        save_file(
            {name: tensor.to(FLOATS.get(dtypes.get(name, ""), tensor.dtype)) for name, tensor in tensors.items()}, path, {"format": "pt"}
        )


def refuse_other_tensors(checkpoint: Path, start: Path) -> None:
    """InputError unless both hold the same tensor names in the same dtypes."""
    written, held = stored_dtypes(checkpoint), stored_dtypes(start)
    for name in sorted(written.keys() | held.keys()):
        if written.get(name) != held.get(name):
            raise InputError(
                f"tensor {name!r} is {held.get(name, 'absent')} in {start} but {written.get(name, 'absent')} after training, so the two "
                "could not be merged; load the start with transformers and save it again before training"
            )
