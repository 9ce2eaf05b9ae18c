"""TIES: trim, elect sign, disjoint merge (Yadav et al. 2023, arXiv 2306.01708, section 3 and algorithm 1).

1. Trim: of each task vector d_i keep the `density` share of largest magnitude, the rest becomes 0.
2. Elect: sign = sgn(sum_i w_i d_i) for each element.
3. Disjoint merge: m = the mean of the kept d_i whose sign is the elected one, weighted by w_i.   Result: b + scale * m.

`Ties` trims over the whole task vector, as the paper does: one threshold per source for all its tensors. `TiesPerTensor` trims each tensor
by itself, as mergekit and PEFT do.

Of n elements floor(density * n) are kept (at least 1), and with them all others of the same magnitude as the last; mergekit keeps an
arbitrary choice of those, by the order a sort leaves them in. The paper has no weights (all 1), and always takes the mean; weights and
`normalize: false` (the weighted sum of those that agree) mean what they mean in mergekit. Where the sum of votes is exactly 0 the elected
sign is 0 and nothing is added, as the paper's formula has it; mergekit takes the positive ones. Otherwise `TiesPerTensor` gives mergekit's
result, but in float32 and rounded once, where mergekit computes in the dtype of the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mergers.merger import Inputs
from mergers.methods.deltas import deltas
from mergers.methods.sparse import SparseMethod, check_fraction
from mergers.methods.threshold import ROUNDS, count, drop_below, find, keep_largest

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array


@dataclass(frozen=True)
class Ties(SparseMethod):
    """b + scale * disjoint mean of the trimmed task vectors; trimmed over the whole model. Counting rounds unless density is 1."""

    density: float = 0.2
    weights: tuple[float, ...] | None = None
    scale: float = 1.0
    normalize: bool = True

    pooled: ClassVar[bool] = True
    consensus: ClassVar[bool] = True

    @property
    def rounds(self) -> int:
        """Those that find each source's threshold; none if everything is kept."""
        return 0 if self.density == 1 else ROUNDS

    def check_sparsity(self) -> None:
        """Raise ConfigError unless 0 < density <= 1."""
        check_fraction("density", self.density, "the share of each source's changes to keep, largest first,")

    @property
    def kept(self) -> str:
        """The share kept."""
        return f"largest {self.density:.4g} of its changes in {'the model' if self.pooled else 'each tensor'}"

    def observe(self, round_number: int, inputs: Inputs) -> Array:
        """How many changes of each source have which magnitude."""
        counts = count(round_number, deltas(inputs), self.known_of(inputs))
        return by_position(counts, inputs.positions) if self.pooled else counts

    def summarize(self, round_number: int, total: Array, known: Array | None) -> Array:
        """The magnitude of the smallest change to keep, of each source; float32 [sources, 1] once it is found."""
        return find(round_number, total, known, keep_largest(self.density))

    def merge(self, inputs: Inputs) -> Tensor:
        """The merged piece."""
        known = self.known_of(inputs)
        if known is None:
            return self.merge_whole(inputs)
        return self.combine(inputs, [drop_below(change, least) for change, (least,) in zip(deltas(inputs), known.tolist(), strict=True)])

    def known_of(self, inputs: Inputs) -> Array | None:
        """What is known of the sources in `inputs`: where all tensors share a round, its rows are the sources of the config."""
        return inputs.known if inputs.known is None or not self.pooled else inputs.known[list(inputs.positions)]


def by_position(counts: Array, positions: tuple[int, ...]) -> Array:
    """Counts with a row for each source of the config, up to the last that holds the tensor: so that those of tensors which some sources
    lack can be added to the others'."""
    if positions == tuple(range(len(counts))):
        return counts
    rows = np.zeros((positions[-1] + 1, *counts.shape[1:]), dtype=np.int64)
    rows[list(positions)] = counts
    return rows


@dataclass(frozen=True)
class TiesPerTensor(Ties):
    """As `Ties`, but each tensor is trimmed by itself: it keeps the same share of its elements whatever their size."""

    pooled: ClassVar[bool] = False
