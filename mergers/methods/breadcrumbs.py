"""Model Breadcrumbs: drop both the largest and the smallest changes (Davari & Belilovsky 2023, arXiv 2312.06795, section 3).

In each tensor (the paper: each layer) the `outliers` share of largest magnitude is dropped, the next `density` share is kept, the rest is
dropped as negligible:  b + scale * sum_i w_i m_i d_i.  `BreadcrumbsTies` puts the kept changes together by the sign consensus of TIES
(arXiv 2306.01708) instead.

Names: `outliers` is the paper's gamma counted from the top (mergekit: gamma), and 1 - density - outliers is the share dropped at the bottom
(the paper's beta). Of n elements t = floor(outliers * n) are dropped at the top and k = floor(density * n) (at least 1) are kept; all that
equal the first or the last kept in magnitude are kept as well, where mergekit keeps an arbitrary choice of them. If there are none, the
results are mergekit's. `BreadcrumbsTies` takes the mean of those that agree, unless told not to normalize; mergekit's breadcrumbs_ties
takes their sum, unless told to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from mergers.merger import Inputs
from mergers.methods.deltas import base_of
from mergers.methods.sparse import ThresholdMethod, at, by_source, check_fractions
from mergers.methods.threshold import drop_above, drop_below, find, keep_band

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array

SUM_TOLERANCE = 1e-9
"""How far density + outliers may lie above 1: room for decimal fractions that binary floats cannot hold."""


@dataclass(frozen=True)
class Breadcrumbs(ThresholdMethod):
    """b + scale * sum_i w_i m_i d_i, with `normalize` divided by sum_i w_i; masks per tensor. Counting rounds unless all is kept."""

    density: float | tuple[float, ...] = 0.9
    outliers: float | tuple[float, ...] = 0.01
    weights: tuple[float, ...] | None = None
    scale: float = 1.0
    normalize: bool = False

    def check_sparsity(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless 0 < density, 0 <= outliers and density + outliers <= 1, each one for all sources or one per source."""
        check_fractions("density", self.density, source_names, "the share of each source's changes to keep")
        check_fractions("outliers", self.outliers, source_names, "the share of largest changes to drop", zero=True)
        for whose, (density, outliers) in by_source(source_names, self.density, self.outliers):
            if density + outliers > 1 + SUM_TOLERANCE:
                raise ConfigError(
                    f"density {density} and outliers {outliers}{whose} sum to {density + outliers:.6g}; what is kept and what is dropped "
                    f"at the top are shares of one tensor: lower density to {1 - outliers:.6g}, or outliers"
                )

    def kept(self, position: int) -> str:
        """The share kept."""
        return f"{at(self.density, position):.4g} of its changes in each tensor, below the largest {at(self.outliers, position):.4g}"

    def summarize(self, round_number: int, total: Array, known: Array | None) -> Array:
        """The magnitudes of the largest and of the smallest change to keep; float32 [sources, 2] once they are found."""
        return find(round_number, total, known, [keep_band(at(self.density, row), at(self.outliers, row)) for row in range(len(total))])

    def merge(self, inputs: Inputs) -> Tensor:
        """The merged piece."""
        found = self.thresholds(inputs)
        if found is None:
            return self.merge_whole(inputs)
        base, changes = base_of(inputs), []
        for position, change, (most, least) in zip(inputs.positions, self.changes(inputs, base), found, strict=True):
            above = drop_below(change, least)
            changes.append(drop_above(above, most) if at(self.density, position) != 1 and at(self.outliers, position) > 0 else above)
        return self.combine(inputs, base, changes)


@dataclass(frozen=True)
class BreadcrumbsTies(Breadcrumbs):
    """b + scale * the disjoint merge of the kept changes: their mean with `normalize`, else their sum."""

    normalize: bool = True

    consensus: ClassVar[bool] = True
