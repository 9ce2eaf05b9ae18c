"""What methods that read a measured statistic (Fisher, Gram) share: what is to be done where some sources lack it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from foundation.errors import ConfigError, InputError
from mergers.methods.linear import check_weights

Missing = Literal["error", "mean"]
"""Where some sources of a tensor have the statistic and others do not: refuse it, or take the plain weighted mean of that tensor."""

Shapes = Sequence[tuple[int, ...] | None]


def check_measured(method: str, weights: tuple[float, ...] | None, missing: str, source_names: Sequence[str]) -> None:
    """Raise ConfigError unless there are two sources or more, weights that make an average, and a known way to treat what is missing."""
    if len(source_names) < 2:
        raise ConfigError(f"{method} needs at least 2 checkpoints, got {len(source_names)}; add another source")
    if weights is not None:
        check_weights(weights, source_names)
    if missing not in get_args(Missing):
        known = " or ".join(get_args(Missing))
        raise ConfigError(f"missing is '{missing}'; it says what to do with tensors that some sources have no statistic for: {known}")


def check_held(statistic: str, name: str, shapes: Shapes, missing: str, sources: Sequence[str]) -> None:
    """Raise InputError if some sources have the statistic for tensor `name`, others do not, and `missing` does not allow it."""
    held = [shape is not None for shape in shapes]
    if missing == "error" and any(held) and not all(held):
        lacking = [labels(sources, len(held))[index] for index, has in enumerate(held) if not has]
        raise InputError(
            f"tensor '{name}': {len(lacking)} of {len(held)} sources have no {statistic} for it ({', '.join(lacking)}) while others do; "
            "measure it for all of them, or set missing: mean to take the plain weighted mean of such tensors"
        )


def check_shapes(statistic: str, name: str, expected: tuple[int, ...], shapes: Shapes, sources: Sequence[str]) -> None:
    """Raise InputError if a statistic that is there has another shape than its tensor asks for."""
    for label, shape in zip(labels(sources, len(shapes)), shapes, strict=True):
        if shape is not None and tuple(shape) != expected:
            raise InputError(
                f"the {statistic} of {label} for tensor '{name}' has shape {list(shape)} where the tensor asks for {list(expected)}; "
                "it was measured on another model, or under another name: measure it on that source"
            )


def labels(sources: Sequence[str], count: int) -> tuple[str, ...]:
    """How messages call the sources of a tensor: by name, or by number where names are not at hand."""
    return tuple(f"'{source}'" for source in sources) if len(sources) == count else tuple(f"source {index + 1}" for index in range(count))


def measured_roles(statistic: str, weights: tuple[float, ...] | None, source_names: Sequence[str]) -> tuple[str, ...]:
    """What each source counts for, in words."""
    count = len(source_names)
    return tuple(f"weight {weight:.6g} times its {statistic}" for weight in weights or (1 / count,) * count)


def check_positive(value: float, field: str, least: float, most: float, what: str) -> None:
    """Raise ConfigError unless `value` is a finite number from `least` to `most`."""
    if not (math.isfinite(value) and least <= value <= most):
        raise ConfigError(f"{field} is {value}; {what} and must lie between {least:g} and {most:g}")
