"""Checkpoints inside a stage, so that a kill loses only the work since the last one.

`work/checkpoint-N` holds what `transformers.Trainer` saves (optimizer, schedule, random numbers of every worker, state) and the trained
weights. Two things are ours. First, the weights lie under the names they have in memory: `save_pretrained` writes other names for LLaVA
and its kin, and the Trainer's own resume would then load none of them and only log a warning. Frozen weights are not repeated; they come
from the start. Second, a manifest with name, size and SHA-256 of every file is written last: without it, or with a file that does not
match, a checkpoint is half-written or damaged, and it is removed and passed over.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from foundation.errors import ConfigError, InputError
from foundation.files import file_sha256, fsync_path, write_json_atomic

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
KEEP = 2


def trained_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The trained weights and all saved buffers by their names in memory, each once."""
    trained = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    saved = model.state_dict()
    return trained | {name: buffer for name, buffer in model.named_buffers() if name in saved}


def save_trained(model: PreTrainedModel, directory: Path) -> None:
    """Write the trained weights of `model` into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.cpu().contiguous() for name, tensor in trained_state(model).items()}, directory / WEIGHTS)


def load_trained(model: PreTrainedModel, directory: Path) -> None:
    """Put the weights that `save_trained` wrote back into `model`; InputError unless they are exactly the trained ones."""
    target = trained_state(model)
    stored = load_file(directory / WEIGHTS)
    if differing := sorted(target.keys() ^ stored.keys()):
        raise InputError(
            f"{directory / WEIGHTS} does not hold the trained weights of this stage: {len(differing)} names differ, e.g. {differing[0]!r}; "
            f"remove {directory.parent} to start the stage again"
        )
    with torch.no_grad():
        for name, tensor in target.items():
            tensor.copy_(stored[name])


def seal(checkpoint: Path, stage: Mapping[str, Any]) -> None:
    """Flush the checkpoint's files and write the manifest that makes it count. `stage` says which stage it belongs to."""
    files = sorted(path for path in checkpoint.iterdir() if path.name != MANIFEST)
    for path in files:
        fsync_path(path)
    listed = {path.name: {"size": path.stat().st_size, "sha256": file_sha256(path)} for path in files}
    write_json_atomic(checkpoint / MANIFEST, {"stage": dict(stage), "files": listed})
    fsync_path(checkpoint.parent)


def is_whole(checkpoint: Path) -> bool:
    """Whether the manifest is there and every file is as it says."""
    try:
        listed = json.loads((checkpoint / MANIFEST).read_text())["files"]
        return bool(listed) and all(_matches(checkpoint / name, entry) for name, entry in listed.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def newest_whole(work: Path, stage: Mapping[str, Any]) -> Path | None:
    """The newest checkpoint in `work` to go on from. Removes damaged ones; ConfigError where it belongs to another stage."""
    for checkpoint in reversed(checkpoints(work)):
        if is_whole(checkpoint):
            _refuse_other_stage(checkpoint, stage)
            return checkpoint
        shutil.rmtree(checkpoint)
    return None


def keep_newest(work: Path) -> None:
    """Remove all but the newest checkpoints."""
    for checkpoint in checkpoints(work)[:-KEEP]:
        shutil.rmtree(checkpoint)


def step_of(checkpoint: Path | None) -> int:
    """The step a checkpoint was taken after; 0 without one."""
    return int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0


def checkpoints(work: Path) -> list[Path]:
    """The checkpoint directories in `work`, whole or not, by step."""
    return sorted((path for path in work.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)), key=step_of)


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
