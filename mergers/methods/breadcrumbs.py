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

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from mergers.merger import Inputs
from mergers.methods.deltas import deltas
from mergers.methods.sparse import SparseMethod, check_fraction
from mergers.methods.threshold import ROUNDS, count, drop_above, drop_below, find, keep_band

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array

SUM_TOLERANCE = 1e-9
"""How far density + outliers may lie above 1: room for decimal fractions that binary floats cannot hold."""


@dataclass(frozen=True)
class Breadcrumbs(SparseMethod):
    """b + scale * sum_i w_i m_i d_i, with `normalize` divided by sum_i w_i; masks per tensor. Counting rounds unless all is kept."""

    density: float = 0.9
    outliers: float = 0.01
    weights: tuple[float, ...] | None = None
    scale: float = 1.0
    normalize: bool = False

    @property
    def rounds(self) -> int:
        """Those that find each source's largest and smallest change to keep; none if everything is kept."""
        return 0 if self.density == 1 else ROUNDS

    def check_sparsity(self) -> None:
        """Raise ConfigError unless 0 < density, 0 <= outliers and density + outliers <= 1."""
        check_fraction("density", self.density, "the share of each source's changes to keep")
        check_fraction("outliers", self.outliers, "the share of largest changes to drop", zero=True)
        if self.density + self.outliers > 1 + SUM_TOLERANCE:
            raise ConfigError(
                f"density {self.density} and outliers {self.outliers} sum to {self.density + self.outliers:.6g}; what is kept and what is "
                f"dropped at the top are shares of one tensor: lower density to {1 - self.outliers:.6g}, or outliers"
            )

    @property
    def kept(self) -> str:
        """The share kept."""
        return f"{self.density:.4g} of its changes in each tensor, below the largest {self.outliers:.4g}"

    def observe(self, round_number: int, inputs: Inputs) -> Array:
        """How many changes of each source have which magnitude."""
        return count(round_number, deltas(inputs), inputs.known)

    def summarize(self, round_number: int, total: Array, known: Array | None) -> Array:
        """The magnitudes of the largest and of the smallest change to keep; float32 [sources, 2] once they are found."""
        return find(round_number, total, known, keep_band(self.density, self.outliers))

    def merge(self, inputs: Inputs) -> Tensor:
        """The merged piece."""
        if inputs.known is None:
            return self.merge_whole(inputs)
        changes = []
        for change, (most, least) in zip(deltas(inputs), inputs.known.tolist(), strict=True):
            above = drop_below(change, least)
            changes.append(drop_above(above, most) if self.outliers > 0 else above)
        return self.combine(inputs, changes)


@dataclass(frozen=True)
class BreadcrumbsTies(Breadcrumbs):
    """b + scale * the disjoint merge of the kept changes: their mean with `normalize`, else their sum."""

    normalize: bool = True

    consensus: ClassVar[bool] = True
