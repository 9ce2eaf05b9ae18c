"""Write a stage's model as its start was written, so that the two can be merged: the same files, tensor names and dtypes.

The start's weight files are the pattern: each is written anew as it is laid out (`trainers/checkpoints/layout.py`), with what was trained
in place and all else copied. The model itself stays as it is, in memory and in float32, so a milestone can be written while it goes on
learning.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from foundation.errors import InputError
from foundation.files import file_sha256, publish_directory
from models.experts import WEIGHTS_FILE, experts_set_aside, routed_mlps, save_experts
from trainers.checkpoints.disk import room_for
from trainers.checkpoints.layout import FLOATS, Layout, read_layout, write_like

INDEX = "model.safetensors.index.json"
SHOWN = 3


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


def layouts(checkpoint: Path) -> list[Layout]:
    """How the weight files of a checkpoint are laid out, read from their headers alone."""
    return [read_layout(path) for path in weight_files(checkpoint)]


def check_start(checkpoint: Path) -> None:
    """Refuse a start whose weights would not come back unchanged from float32."""
    for layout in layouts(checkpoint):
        for name, place in layout.places.items():
            if place.dtype.startswith("F") and place.dtype not in FLOATS:
                raise InputError(
                    f"{checkpoint}: tensor {name!r} is {place.dtype}; a stage starts from {', '.join(FLOATS)} weights, convert it first"
                )


def check_names(model: PreTrainedModel, start: Path) -> None:
    """InputError where `model`, just loaded from `start`, would be saved under other names or shapes: the two could not be merged."""
    with experts_set_aside(model):
        disk_tensors(model, model.state_dict(), start)


def write_output(
    model: PreTrainedModel,
    processor: Any,
    start: Path,
    output: Path,
    extras: Callable[[Path], None] | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, str]:
    """Publish `model` (float32) as `output`, complete or not at all; gives the SHA-256 of each file by its name.

    Trained weights are rounded once, to the dtype their name has in `start`. `state` holds, by their names in memory, the weights that
    differ from the start's (all of the model's unless given); the others are copied from `start`. `extras` writes further files beside
    them. Raises ResourceError where the disk is full, with nothing left behind; InputError where the names are no longer those of `start`.
    """
    found = layouts(start)
    temporary = output.with_name(f".{output.name}.tmp")

    def tidy() -> None:
        shutil.rmtree(temporary, ignore_errors=True)

    tidy()
    with room_for(sum(layout.size for layout in found), output.parent, f"the checkpoint {output.name}", tidy):
        temporary.mkdir(parents=True)
        with experts_set_aside(model):
            changed = model.state_dict() if state is None else with_other_names(model, state)
            tensors = disk_tensors(model, changed, start, partly=state is not None)
        digests = {layout.path.name: write_like(layout, temporary / layout.path.name, tensors) for layout in found}
        save_companions(model, processor, temporary, start)
        if extras:
            extras(temporary)
        open_to_readers(temporary)
        names = sorted(path.relative_to(temporary).as_posix() for path in temporary.rglob("*") if path.is_file())
        manifest = {name: digests.get(name) or file_sha256(temporary / name) for name in names}
        publish_directory(temporary, output)
    return manifest


def with_other_names(model: PreTrainedModel, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`state` with every name that `model` has for its tensors (tied embeddings have two); names that it has not are left out."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    given = {id(tensor): state[name] for name, tensor in named if name in state}
    return {name: given[id(tensor)] for name, tensor in named if id(tensor) in given}


def disk_tensors(model: PreTrainedModel, state: Mapping[str, torch.Tensor], start: Path, partly: bool = False) -> dict[str, torch.Tensor]:
    """The tensors of `state` by their names in the files of `start`, views where they can be. Raises InputError unless they fit in there.

    What only the files have is not the model's to change (transformers ignored it when loading). What only the model has must be another
    name for a tensor that the files have: tied embeddings.
    """
    places = {name: place for layout in layouts(start) for name, place in layout.places.items()}
    unsaved = set(model._keys_to_ignore_on_save or ())
    named = revert_weight_conversion(model, {name: tensor for name, tensor in state.items() if name not in unsaved})
    kept = {name: tensor for name, tensor in named.items() if name in places}
    held = {storage(tensor) for tensor in kept.values()}
    ignored = [] if partly else sorted(places.keys() - kept.keys())
    strange = sorted(name for name, tensor in named.items() if name not in places and storage(tensor) not in held)
    if strange:
        lacking = f", which has {', '.join(map(repr, ignored[:SHOWN]))} instead" if ignored else ""
        raise InputError(
            f"tensor {strange[0]!r} of the model is absent in {start}{lacking}, so the two could not be merged; "
            "load the start with transformers and save it again before training"
        )
    for name, tensor in kept.items():
        if tuple(tensor.shape) != places[name].shape:
            raise InputError(f"tensor {name!r} is {list(places[name].shape)} in {start} but {list(tensor.shape)} in the model")
    return kept


def storage(tensor: torch.Tensor) -> tuple[int, tuple[int, ...]]:
    """What two names of one tensor have in common."""
    return tensor.data_ptr(), tuple(tensor.shape)


def save_companions(model: PreTrainedModel, processor: Any, checkpoint: Path, start: Path) -> None:
    """All files beside the weights. Where `start` has one of that name, it is the start's: saving again might reword it."""
    model.config.save_pretrained(checkpoint)
    if model.can_generate():
        model.generation_config.save_pretrained(checkpoint)
    processor.save_pretrained(checkpoint)
    names = {path.name for path in checkpoint.iterdir()} - {path.name for path in weight_files(start)} | {INDEX}
    for name in sorted(names):
        if (start / name).is_file():
            shutil.copyfile(start / name, checkpoint / name)
    if routed_mlps(model):
        save_experts(model, checkpoint)
        cast_file(checkpoint / WEIGHTS_FILE, {place.dtype for layout in layouts(start) for place in layout.places.values()})


def cast_file(path: Path, dtypes: set[str]) -> None:
    """Round each float tensor on disk to the one float dtype among `dtypes`; as it is where there are several."""
    wanted = [FLOATS[dtype] for dtype in sorted(dtypes & FLOATS.keys())]
    if len(wanted) == 1 and wanted != [torch.float32]:
        save_file({name: tensor.to(wanted[0]) for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def open_to_readers(directory: Path) -> None:
    """Give every file the permissions that the user's umask asks for (safetensors makes private ones)."""
    mask = os.umask(0)
    os.umask(mask)
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            path.chmod(0o666 & ~mask)
