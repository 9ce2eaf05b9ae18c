"""Files of what was measured of a checkpoint's weights, element by element: one safetensors file under the checkpoint's names on disk.

Names on disk are what merging reads, and the only ones two programs agree on; transformers renames on loading. What it renames, and back,
is asked of the loaded model, by the function that saving goes through.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from foundation.errors import InputError
from foundation.files import fsync_path
from trainers.checkpoints.output import weight_files


def write_statistic(path: Path, model: PreTrainedModel, checkpoint: Path, values: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write `values` (by names in memory, float32) for the model loaded from `checkpoint`; the file appears whole or not at all.

    `about` becomes one entry of metadata, "about", as JSON: of several, safetensors would mix the order, and equal files would differ.
    InputError where the checkpoint does not hold the tensors that transformers would save these values as.
    """
    found = {name: value.contiguous().cpu() for name, value in sorted(revert_weight_conversion(model, dict(values)).items())}
    held = shapes(checkpoint)
    for name, value in found.items():
        if held.get(name) != tuple(value.shape):
            raise InputError(
                f"{checkpoint}: what was measured would be saved as {name!r} {list(value.shape)}, but the checkpoint holds "
                f"{'no such tensor' if name not in held else list(held[name])}; load it with transformers and save it again"
            )
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(found, temporary, {"about": json.dumps(dict(about), sort_keys=True)})
    fsync_path(temporary)
    os.replace(temporary, path)
    fsync_path(path.parent)


def shapes(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor on disk, from the headers alone."""
    found = {}
    for path in weight_files(checkpoint):
        with safe_open(path, framework="pt") as file:
            found.update({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118 (safe_open is no mapping)
    return found


def names_on_disk(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Name in memory -> name on disk of the given weights of `model`; InputError for one that is saved in another form."""
    empty = {name: torch.empty(weight.shape, device="meta") for name, weight in weights.items()}
    saved = {id(tensor): name for name, tensor in revert_weight_conversion(model, dict(empty)).items()}
    changed = [name for name, tensor in empty.items() if id(tensor) not in saved]
    if changed:
        raise InputError(
            f"{len(changed)} trained weights of {type(model).__name__}, e.g. {changed[0]!r}, are saved in another form than they have in "
            "memory, so what was measured of them cannot be read back; train other parts"
        )
    return {name: saved[id(tensor)] for name, tensor in empty.items()}


def read_statistic(path: Path, model: PreTrainedModel, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the file at `path` says of the given weights of `model`, by names in memory, float32.

    InputError where it lacks one of them, has another shape, or holds a negative value or one that is not finite.
    """
    on_disk = names_on_disk(model, weights)
    try:
        with safe_open(path, framework="pt") as file:
            refuse_missing(path, on_disk.values(), file.keys())
            found = {name: file.get_tensor(stored).float() for name, stored in on_disk.items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error}); measure it again") from error
    for name, value in found.items():
        if value.shape != weights[name].shape:
            raise InputError(
                f"{path}: {on_disk[name]!r} has shape {list(value.shape)}, the model's is {list(weights[name].shape)}; measure it again"
            )
        if not bool(torch.isfinite(value).all()) or float(value.min()) < 0:
            raise InputError(f"{path}: {on_disk[name]!r} holds values that are negative or not finite; measure it again")
    return found


def refuse_missing(path: Path, wanted: Iterable[str], held: Iterable[str]) -> None:
    """InputError where a wanted tensor is not held."""
    missing = sorted(set(wanted) - set(held))
    if missing:
        raise InputError(
            f"{path} holds nothing for {len(missing)} trained weights, e.g. {missing[0]!r}; measure it for all parts that are trained"
        )
