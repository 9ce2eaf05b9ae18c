"""Freeze a model but for the chosen parts, count what learns, and check that it is exactly what was said."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from foundation.errors import InputError
from models.parts.find import selected, tunable_parameters

if TYPE_CHECKING:
    from torch import nn


def set_trainable(model: "nn.Module", parts: Sequence[str]) -> dict[str, int]:
    """Make the parameters of `parts` trainable and freeze all others; gives the number of weights per part.

    Raises InputError, before anything is changed, for a part that matches no parameter and for parts with weights in common.
    """
    names = selected(model, parts)
    chosen = {name for found in names.values() for name in found}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    return count_weights(model, names)


def count_weights(model: "nn.Module", names: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """How many weights the parameters in each list of names hold. Tied weights have one name and count once."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return {part: sum(sizes[name] for name in found) for part, found in names.items()}


def check_trainable(model: "nn.Module", parts: Sequence[str]) -> None:
    """InputError unless exactly the parameters of `parts` learn (`requires_grad`), all others being frozen."""
    chosen = set(tunable_parameters(model, parts))
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    faults = {"should learn but frozen": chosen - learns, "should be frozen but learning": learns - chosen}
    told = [f"{len(names)} {fault}, e.g. {min(names)!r}" for fault, names in faults.items() if names]
    if told:
        raise InputError(f"{type(model).__name__}: {'; '.join(told)}; call set_trainable with parts {', '.join(parts)} before training")
