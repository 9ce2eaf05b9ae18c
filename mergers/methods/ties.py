"""TIES: trim, elect sign, disjoint merge (Yadav et al. 2023, arXiv 2306.01708, section 3 and algorithm 1).

1. Trim: of each task vector d_i keep the `density` share of largest magnitude, the rest becomes 0.
2. Elect: sign = sgn(sum_i w_i d_i) for each element.
3. Disjoint merge: m = the mean of the kept d_i whose sign is the elected one, weighted by w_i.   Result: b + scale * m.

`Ties` trims over the whole task vector, as the paper does: one threshold per source for all its tensors. `TiesPerTensor` trims each tensor
by itself, as mergekit and PEFT do. `density` may differ between sources, as in mergekit.

Of n elements floor(density * n) are kept (at least 1), and with them all others of the same magnitude as the last; mergekit keeps an
arbitrary choice of those, by the order a sort leaves them in. The paper has no weights (all 1), and always takes the mean; weights and
`normalize: false` (the weighted sum of those that agree) mean what they mean in mergekit. Where the sum of votes is exactly 0 the elected
sign is 0 and nothing is added, as the paper's formula has it; mergekit takes the positive ones. Otherwise `TiesPerTensor` gives mergekit's
result, but in float32 and rounded once, where mergekit computes in the dtype of the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mergers.merger import Inputs
from mergers.methods.deltas import base_of
from mergers.methods.sparse import ThresholdMethod, at, check_fractions
from mergers.methods.threshold import drop_below, find, keep_largest

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array


@dataclass(frozen=True)
class Ties(ThresholdMethod):
    """b + scale * disjoint mean of the trimmed task vectors; trimmed over the whole model. Counting rounds unless density is 1."""

    density: float | tuple[float, ...] = 0.2
    weights: tuple[float, ...] | None = None
    scale: float = 1.0
    normalize: bool = True

    pooled: ClassVar[bool] = True
    consensus: ClassVar[bool] = True

    def check_sparsity(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless 0 < density <= 1, one for all sources or one per source."""
        check_fractions("density", self.density, source_names, "the share of each source's changes to keep, largest first,")

    def kept(self, position: int) -> str:
        """The share kept."""
        return f"largest {at(self.density, position):.4g} of its changes in {'the model' if self.pooled else 'each tensor'}"

    def summarize(self, round_number: int, total: Array, known: Array | None) -> Array:
        """The magnitude of the smallest change to keep, of each source; float32 [sources, 1] once it is found."""
        return find(round_number, total, known, [keep_largest(at(self.density, row)) for row in range(len(total))])

    def merge(self, inputs: Inputs) -> Tensor:
        """The merged piece."""
        found = self.thresholds(inputs)
        if found is None:
            return self.merge_whole(inputs)
        base = base_of(inputs)
        changes = [drop_below(change, least) for change, (least,) in zip(self.changes(inputs, base), found, strict=True)]
        return self.combine(inputs, base, changes)


@dataclass(frozen=True)
class TiesPerTensor(Ties):
    """As `Ties`, but each tensor is trimmed by itself: it keeps the same share of its elements whatever their size."""

    pooled: ClassVar[bool] = False
