"""SCE: select, calculate, erase (Wan et al. 2024, FuseChat, arXiv 2408.07990, section 3.3). For each tensor, with task vectors d_i:

1. Select: keep the `select` share of positions where the d_i differ most, by their variance over the sources; the rest becomes 0.
2. Calculate: w_i = sum of squares of the kept d_i, divided by the sum over all sources: one weight per source and tensor.
3. Erase: at each position drop the d_i whose sign is not that of sum_i d_i.   Result:  b + sum_i w_i d_i / sum_i w_i over those left.

Of n positions floor(select * n) are selected (at least 1), and with them all others of the same variance as the last; mergekit keeps an
arbitrary choice of those. Variances are ranked as float32. Where the signed sum is exactly 0 nothing is added; mergekit takes the positive
ones. Positions that are not selected keep the base. If no source has changed at all, the weights are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foundation.errors import ConfigError
from mergers.merger import Inputs, Method, Need
from mergers.methods.deltas import add_consensus, base_of, departures
from mergers.methods.sparse import check_fraction
from mergers.methods.threshold import ROUNDS, count, find, keep_largest, likely, needs, watches

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array


@dataclass(frozen=True)
class Sce(Method):
    """b + weighted mean of the selected changes that agree in sign; weights come from the changes. Counting rounds for the
    threshold, unless all is selected, and one for the weights."""

    select: float = 1.0

    base: ClassVar[Need] = Need.REQUIRED

    @property
    def selects(self) -> bool:
        """Whether some positions are left out."""
        return self.select != 1

    @property
    def rounds(self) -> int:
        """Those that find the least variance to select, unless all is selected, and one for the sums of squares."""
        return ROUNDS + 1 if self.selects else 1

    def watches(self, round_number: int, block_number: int) -> bool:
        """Whether a round looks at a block: the sums need all, the threshold begins with a sample."""
        return round_number == self.rounds - 1 or watches(round_number, block_number)

    def likely(self, round_number: int) -> bool:
        """Whether a round is to be reckoned with."""
        return round_number == self.rounds - 1 or likely(round_number)

    def needs(self, round_number: int, known: Array | None) -> bool:
        """Whether the threshold is still to be found; the sums are always needed."""
        return round_number == self.rounds - 1 or needs(round_number, known)

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there are 2 sources or more and 0 < select <= 1."""
        if len(source_names) < 2:
            raise ConfigError(f"sce compares sources with one another and needs at least 2 beside the base, got {len(source_names)}")
        check_fraction("select", self.select, "the share of positions of each tensor to merge, those of largest variance,")

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """Weights are measured, so only the selection can be told."""
        return (f"weighted by its squared changes, at the {self.select:.4g} of positions of largest variance",) * len(source_names)

    def observe(self, round_number: int, inputs: Inputs) -> Array:
        """How many positions have which variance; in the last round the sum of squares of each source's selected changes."""
        changes = departures(inputs, base_of(inputs))
        if round_number < self.rounds - 1:
            return count(round_number, [spread(changes)], inputs.known)
        if inputs.known is not None:
            select_positions(changes, float(inputs.known[0, 0]))
        return np.array([sum_of_squares(change) for change in changes])

    def summarize(self, round_number: int, total: Array, known: Array | None) -> Array:
        """After the last round float64 [1 + sources]: the least variance to select, then the weights."""
        if round_number < self.rounds - 1:
            return find(round_number, total, known, keep_largest(self.select))
        whole = total.sum()
        weights = total / whole if whole != 0 else np.full(len(total), 1 / len(total))
        return np.concatenate([[0.0 if known is None else float(known[0, 0])], weights])

    def merge(self, inputs: Inputs) -> Tensor:
        """The merged piece."""
        if inputs.known is None:
            raise RuntimeError(f"tensor '{inputs.name}' has come without its weights; sce needs its counting rounds")
        base = base_of(inputs)
        changes = departures(inputs, base)
        least, *weights = inputs.known.tolist()
        if self.selects:
            select_positions(changes, least)
        return add_consensus(base, changes, weights, 1.0, normalize=True, votes=(1.0,) * len(changes))


def spread(changes: Sequence[Tensor]) -> Tensor:
    """The sum of squared deviations from the mean at each position: the variance times the number of sources, which ranks alike."""
    mean = changes[0] + changes[1] if len(changes) > 1 else changes[0].clone()
    for change in changes[2:]:
        mean += change
    mean /= len(changes)
    total = (changes[0] - mean).square_()
    for change in changes[1:]:
        total += (change - mean).square_()
    return total


def select_positions(changes: Sequence[Tensor], least: float) -> None:
    """Set the changes to 0, in place, where their variance lies below `least` (as `spread` gives it, in float32)."""
    selected = spread(changes).float().ge_(least)
    for change in changes:
        change *= selected


def sum_of_squares(change: Tensor) -> float:
    """The sum of squares of one block, in float64. Numpy's sum goes in the same order on every processor."""
    return float(np.add.reduce(change.double().square_().view(-1).numpy()))
