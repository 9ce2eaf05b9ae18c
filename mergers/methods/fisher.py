"""Fisher-weighted averaging: every element is averaged by how much its source's loss depends on it.

Matena and Raffel 2022 (arXiv 2111.09832, the diagonal form), elementwise, with F_i the diagonal of source i's Fisher information:
    W = sum_i w_i F_i x_i / sum_i w_i F_i,    F_i <- max(F_i, floor).
`floor` keeps elements whose Fisher is 0 everywhere defined (they get the plain weighted mean); 1e-8 is that of WiSE-FT's Fisher variant.
It is absolute, so a Fisher of another scale wants another floor. Measure all sources alike: a Fisher that is ten times as large
counts ten times as much.

A tensor that no source has a Fisher for gets the plain weighted mean. In float32 (float64 for float64 tensors), as
x_1 - sum_{i>1} r_i (x_1 - x_i) with r_i = w_i F_i / sum_j w_j F_j: equal elements keep every bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import InputError
from mergers.merger import Inputs, Method, Statistic
from mergers.methods.linear import average, compute_dtype, weights_of_holders
from mergers.methods.measured import (
    Missing,
    Shapes,
    check_held,
    check_measured,
    check_positive,
    check_shapes,
    measured_roles,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Fisher(Method):
    """Weighted average by element, each source's weight times its Fisher there. Reads the statistic `fisher` of every source.

    `missing` says what becomes of a tensor that some sources have a Fisher for and others do not: "error", or "mean" (plain weighted mean).
    """

    weights: tuple[float, ...] | None = None
    floor: float = 1e-8
    missing: Missing = "error"

    statistic: ClassVar[Statistic | None] = Statistic("fisher", per_element=True)

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there are two sources or more, weights that make an average, and a floor float32 can divide by."""
        check_measured("Fisher averaging", self.weights, self.missing, source_names)
        check_positive(self.floor, "floor", 1e-30, 1e30, "it is the least Fisher an element is taken to have")

    def check_statistics(self, name: str, shape: tuple[int, ...], found: Shapes, sources: Sequence[str] = ()) -> None:
        """Raise InputError unless tensor `name` can be merged with statistics of these shapes (None: that source has none)."""
        check_shapes("fisher", name, tuple(shape), found, sources)
        check_held("fisher", name, found, self.missing, sources)

    def check_holders(self, name: str, positions: Sequence[int]) -> None:
        """Raise ConfigError if all sources that hold tensor `name` have weight 0."""
        weights_of_holders(self.weights, name, positions)

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """What each source counts for, in words."""
        return measured_roles("fisher", self.weights, source_names)

    def merge(self, inputs: Inputs) -> Tensor:
        """The average of one piece, over the sources that hold it; InputError if a Fisher is negative or not finite."""
        if len(inputs.tensors) == 1:
            return inputs.tensors[0]
        weights = weights_of_holders(self.weights, inputs.name, inputs.positions)
        held = [value for value in inputs.statistics if value is not None]
        if len(held) < len(inputs.tensors):
            check_held("fisher", inputs.name, [None if value is None else () for value in inputs.statistics], self.missing, inputs.sources)
            return average(inputs.tensors, weights)
        kept = [index for index, weight in enumerate(weights) if weight > 0]
        if len(kept) == 1:
            return inputs.tensors[kept[0]]
        dtype = compute_dtype(inputs.tensors)
        pulls = [self.pull(inputs, index, weights[index], dtype) for index in kept]
        total = pulls[0]
        for pull in pulls[1:]:
            total += pull
        first, moved = inputs.tensors[kept[0]].to(dtype), None
        for index, pull in zip(kept[1:], pulls[1:], strict=True):
            term = pull.mul_(first - inputs.tensors[index].to(dtype))
            moved = term if moved is None else moved.add_(term)
        assert moved is not None
        return first - moved.div_(total)

    def pull(self, inputs: Inputs, index: int, weight: float, dtype: torch.dtype) -> Tensor:
        """w_i max(F_i, floor) of one source's piece, in fresh memory, once its Fisher is found fit."""
        import torch

        value = inputs.statistics[index]
        assert value is not None
        least, most = (float(bound) for bound in torch.aminmax(value))
        if not (least >= 0 and most < float("inf")):  # NaN too
            what = f"{least:g}" if least < 0 else f"{most:g}"
            raise InputError(
                f"the fisher of '{inputs.sources[index]}' for tensor '{inputs.name}' holds {what} in elements {inputs.start} to "
                f"{inputs.start + value.numel() - 1}; squared gradients are finite and not negative: measure it again"
            )
        return value.to(dtype, copy=True).clamp_(min=self.floor).mul_(weight)
