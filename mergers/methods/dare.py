"""DARE: drop changes at random and rescale the rest (Yu et al. 2023, arXiv 2311.03099, section 3.2).

    m_i ~ Bernoulli(density) for each element,    d_i' = m_i d_i / density,    result: b + scale * sum_i w_i d_i'        (dare_linear)
`DareTies` puts the d_i' together by the sign consensus of TIES instead (arXiv 2306.01708). `density` is 1 - the paper's drop rate p.

The expectation of d_i' is d_i: `density` is taken to the nearest multiple of 2^-16, and rescaling uses the density as taken. mergekit
rescales by the ratio of the L1 norms before and after, which is the same in expectation only for changes of like size, and differs much
where few large ones carry the norm. With `rescale: false` the kept changes stay as they are, as in mergekit. `DareTies` takes the mean of
those that agree, as TIES does; mergekit's dare_ties takes their sum unless told to normalize.

Masks are addressed by (seed, source name, tensor name, block), see `draws.py`: independent of workers, order, and of the other sources.
At density 1 nothing is drawn and `DareLinear` is task arithmetic to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from mergers.merger import Inputs
from mergers.methods.deltas import deltas
from mergers.methods.draws import LEVELS, block_draws, keep_mask, level_of
from mergers.methods.sparse import SparseMethod, check_fraction

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DareLinear(SparseMethod):
    """b + scale * sum_i w_i m_i d_i / density, with `normalize` divided by sum_i w_i. Elementwise, no counting rounds."""

    density: float
    weights: tuple[float, ...] | None = None
    scale: float = 1.0
    seed: int = 0
    normalize: bool = False
    rescale: bool = True

    def check_sparsity(self) -> None:
        """Raise ConfigError unless 0 < density <= 1, also when taken to a multiple of 2^-16."""
        check_fraction("density", self.density, "the probability that a change is kept")
        if level_of(self.density) == 0:
            raise ConfigError(
                f"density is {self.density}, which is 0 as a multiple of 2^-16: nothing would be kept; give at least {1 / LEVELS}"
            )

    @property
    def kept(self) -> str:
        """The share kept."""
        return f"{self.density:.4g} of its changes at random (seed {self.seed})"

    def merge(self, inputs: Inputs) -> Tensor:
        """The merged piece."""
        level = level_of(self.density)
        if level == LEVELS:
            return self.merge_whole(inputs)
        changes = deltas(inputs)
        for index, change in enumerate(changes):
            change *= keep_mask(block_draws(self.seed, inputs, index), level, change.dtype)
        return self.combine(inputs, changes, LEVELS / level if self.rescale else 1.0)


@dataclass(frozen=True)
class DareTies(DareLinear):
    """b + scale * the disjoint merge of m_i d_i / density: their mean with `normalize`, else their sum."""

    normalize: bool = True

    consensus: ClassVar[bool] = True
