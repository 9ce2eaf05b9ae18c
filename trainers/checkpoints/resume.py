"""Checkpoints inside a stage, so that a kill loses only the work since the last one.

`work/checkpoint-N` holds what `transformers.Trainer` saves (optimizer, schedule, random numbers of every worker, state) and the trained
weights. Two things are ours. First, the weights lie under the names they have in memory: `save_pretrained` writes other names for LLaVA
and its kin, and the Trainer's own resume would then load none of them and only log a warning. Frozen weights are not repeated; they come
from the start. Second, a manifest with name, size and SHA-256 of every file is written last: without it, or with a file that does not
match, a checkpoint is half-written or damaged, and it is removed and passed over.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from foundation.errors import ConfigError, InputError, ResourceError
from foundation.files import file_sha256, fsync_path, write_json_atomic

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
KEEP = 2
BESIDE = 2**16
"""Bytes to reckon with for the small files of a checkpoint: schedule, random numbers, state, manifest."""


def trained_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The trained weights and all saved buffers by their names in memory, each once and whole.

    To be called on every worker: where the workers share out a weight, they put it together, one at a time, and the first worker alone
    keeps it, on the CPU. Without sharding the tensors are the model's own.
    """
    found = {}
    for name, tensor in _trained(model).items():
        together = whole(tensor)
        if not is_sharded(tensor):
            found[name] = together
        elif dist.get_rank() == 0:
            found[name] = together.cpu()
    return found


def save_trained(model: PreTrainedModel, directory: Path, write: bool = True) -> None:
    """Write the trained weights of `model` into `directory`; with sharded weights all workers call this, and one of them writes."""
    state = trained_state(model)
    if write:
        directory.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.cpu().contiguous() for name, tensor in state.items()}, directory / WEIGHTS)


def load_trained(model: PreTrainedModel, directory: Path) -> None:
    """Put the weights that `save_trained` wrote back into `model`; InputError unless they are exactly the trained ones."""
    put_trained(model, load_file(directory / WEIGHTS), directory / WEIGHTS)


def put_trained(model: PreTrainedModel, stored: Mapping[str, torch.Tensor], source: Path) -> None:
    """Set the trained weights and saved buffers of `model`, sharded or not, to `stored`, which came from `source`."""
    target = _trained(model)
    if differing := sorted(target.keys() ^ stored.keys()):
        raise InputError(
            f"{source} does not hold the trained weights of this stage: {len(differing)} names differ, e.g. {differing[0]!r}; "
            f"remove {source.parent.parent} to start the stage again"
        )
    with torch.no_grad():
        for name, tensor in target.items():
            if is_sharded(tensor):
                mesh, value = tensor.device_mesh, stored[name].to(tensor.device_mesh.device_type)  # type: ignore[attr-defined]
                tensor.copy_(distribute_tensor(value, mesh, tensor.placements).to(tensor.device))  # type: ignore[attr-defined]
            else:
                tensor.copy_(stored[name])


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether the workers hold a piece of it each."""
    return isinstance(tensor, DTensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or put together from the workers' pieces (all of them call this)."""
    if not isinstance(tensor, DTensor):
        return tensor
    pieces: DTensor = tensor.to(tensor.device_mesh.device_type)  # type: ignore[assignment] # those on the CPU travel by the mesh's device
    return pieces.full_tensor()


def room_needed(model: PreTrainedModel) -> int:
    """Bytes of a checkpoint: the trained weights and AdamW's two moments, float32, and what comes beside them."""
    return sum(tensor.numel() for tensor in _trained(model).values()) * 3 * 4 + BESIDE


_ON_SAVED: ContextVar[Callable[[Path], None] | None] = ContextVar("on_saved", default=None)


@contextmanager
def telling(on_saved: Callable[[Path], None] | None) -> Iterator[None]:
    """Within, `on_saved` is called on the first worker with each checkpoint of a stage, and each milestone, once it is whole."""
    token = _ON_SAVED.set(on_saved)
    try:
        yield
    finally:
        _ON_SAVED.reset(token)


def tell_saved(place: Path) -> None:
    """Say that the checkpoint or milestone at `place` is whole."""
    on_saved = _ON_SAVED.get()
    if on_saved is not None:
        on_saved(place)


def seal(checkpoint: Path, stage: Mapping[str, Any]) -> None:
    """Flush the checkpoint's files and write the manifest that makes it count. `stage` says which stage it belongs to."""
    for path in sorted(checkpoint.rglob("*")):
        fsync_path(path)
    write_manifest(checkpoint / MANIFEST, checkpoint, stage)
    fsync_path(checkpoint.parent)
    tell_saved(checkpoint)


def write_manifest(path: Path, directory: Path, stage: Mapping[str, Any], known: Mapping[str, str] | None = None) -> None:
    """Write to `path` which stage `directory` belongs to, and size and SHA-256 of every file in it; `known` are not read again."""
    files = {each.relative_to(directory).as_posix(): each for each in directory.rglob("*") if each.is_file() and each != path}
    digests = {name: (known or {}).get(name) or file_sha256(files[name]) for name in sorted(files)}
    listed = {name: {"size": files[name].stat().st_size, "sha256": digest} for name, digest in digests.items()}
    write_json_atomic(path, {"stage": dict(stage), "files": listed})


def _trained(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    trained = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    saved = model.state_dict()
    return trained | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def is_whole(checkpoint: Path, manifest: Path | None = None) -> bool:
    """Whether the manifest (that in the checkpoint unless given) is there and every file is as it says."""
    try:
        listed = json.loads((manifest or checkpoint / MANIFEST).read_text())["files"]
        return bool(listed) and all(_matches(checkpoint / name, entry) for name, entry in listed.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def newest_whole(work: Path, stage: Mapping[str, Any], before: int | None = None) -> Path | None:
    """The newest checkpoint in `work` to go on from, of a step below `before`; removes damaged and later ones.

    Raises ConfigError where it belongs to another stage, ResourceError where this process may not read or remove it: passing over a good
    checkpoint for want of permission would throw work away.
    """
    for checkpoint in reversed(checkpoints(work)):
        _refuse_unreadable(checkpoint)
        if is_whole(checkpoint):
            _refuse_other_stage(checkpoint, stage)
            if before is None or step_of(checkpoint) < before:
                return checkpoint
        shutil.rmtree(checkpoint)
    return None


def remove_half_written(work: Path) -> None:
    """Remove the checkpoint that was being written, to give its room back."""
    for checkpoint in checkpoints(work):
        if not (checkpoint / MANIFEST).exists():
            shutil.rmtree(checkpoint, ignore_errors=True)


def keep_newest(work: Path) -> None:
    """Remove all but the newest checkpoints."""
    for checkpoint in checkpoints(work)[:-KEEP]:
        shutil.rmtree(checkpoint)


def step_of(checkpoint: Path | None) -> int:
    """The step a checkpoint was taken after; 0 without one."""
    return int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0


def checkpoints(work: Path) -> list[Path]:
    """The checkpoint directories in `work`, whole or not, by step. What has another name is not ours and stays."""
    found = (path for path in work.glob("checkpoint-*") if path.is_dir() and re.fullmatch(r"checkpoint-\d+", path.name))
    return sorted(found, key=step_of)


def _refuse_unreadable(checkpoint: Path) -> None:
    for path in [checkpoint, *sorted(checkpoint.rglob("*"))]:
        if not os.access(path, os.R_OK | (os.W_OK | os.X_OK if path.is_dir() else 0)):
            raise ResourceError(f"{path} may not be read or removed by this process; give it the rights, or remove {checkpoint} yourself")


def _matches(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.stat().st_size == entry["size"] and file_sha256(path) == entry["sha256"]


def _refuse_other_stage(checkpoint: Path, stage: Mapping[str, Any]) -> None:
    found = json.loads((checkpoint / MANIFEST).read_text())["stage"]
    wanted = json.loads(json.dumps(stage))
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise ConfigError(
                f"{checkpoint} belongs to another stage: its {name} is {found.get(name)!r}, this stage's is {wanted.get(name)!r}; "
                "give this stage a work directory of its own, or remove that one"
            )
