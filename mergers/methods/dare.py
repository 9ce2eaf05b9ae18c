"""DARE: drop changes at random and rescale the rest (Yu et al. 2023, arXiv 2311.03099, section 3.2).

    m_i ~ Bernoulli(density) for each element,    d_i' = m_i d_i / density,    result: b + scale * sum_i w_i d_i'        (dare_linear)
`DareTies` puts the d_i' together by the sign consensus of TIES instead (arXiv 2306.01708). `density` is 1 - the paper's drop rate p.

The expectation of d_i' is d_i: `density` is taken to the nearest multiple of 2^-16, and rescaling uses the density as taken. mergekit
rescales by the ratio of the L1 norms before and after, which is the same in expectation only for changes of like size, and differs much
where few large ones carry the norm. With `rescale: false` the kept changes stay as they are, as in mergekit. `DareTies` takes the mean of
those that agree, as TIES does; mergekit's dare_ties takes their sum unless told to normalize.

Masks are addressed by (seed, source name, tensor name, block), see `draws.py`: independent of workers, order, and of the other sources.
Of a source of density 1 nothing is drawn; where all are, `DareLinear` is task arithmetic to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from mergers.merger import Inputs
from mergers.methods.deltas import base_of
from mergers.methods.draws import LEVELS, block_draws, keep_mask, level_of
from mergers.methods.sparse import SparseMethod, at, by_source, check_fractions

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DareLinear(SparseMethod):
    """b + scale * sum_i w_i m_i d_i / density, with `normalize` divided by sum_i w_i. Elementwise, no counting rounds."""

    density: float | tuple[float, ...]
    weights: tuple[float, ...] | None = None
    scale: float = 1.0
    seed: int = 0
    normalize: bool = False
    rescale: bool = True

    def check_sparsity(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless 0 < density <= 1, also when taken to a multiple of 2^-16, one for all sources or one per source."""
        check_fractions("density", self.density, source_names, "the probability that a change is kept")
        for whose, (density,) in by_source(source_names, self.density):
            if level_of(density) == 0:
                raise ConfigError(
                    f"density{whose} is {density}, which is 0 as a multiple of 2^-16: nothing would be kept; give at least {1 / LEVELS}"
                )

    def kept(self, position: int) -> str:
        """The share kept."""
        return f"{at(self.density, position):.4g} of its changes at random (seed {self.seed})"

    def merge(self, inputs: Inputs) -> Tensor:
        """The merged piece. A density that the sources share is divided out of the sum, others out of each source's changes."""
        levels = self.levels(inputs)
        if all(level == LEVELS for level in levels):
            return self.merge_whole(inputs)
        factors, shared = self.rescaling(levels)
        base = base_of(inputs)
        changes = self.changes(inputs, base)
        for index, (change, level, factor) in enumerate(zip(changes, levels, factors, strict=True)):
            if level < LEVELS:
                change *= keep_mask(block_draws(self.seed, inputs, index), level, change.dtype)
                if factor != 1:
                    change *= factor
        return self.combine(inputs, base, changes, shared)

    def levels(self, inputs: Inputs) -> list[int]:
        """The density of each source in multiples of 2^-16."""
        return [level_of(at(self.density, position)) for position in inputs.positions]

    def rescaling(self, levels: Sequence[int]) -> tuple[list[float], float]:
        """1 / density for each source's changes, and for their sum: the sum's where all have one density."""
        if not self.rescale:
            return [1.0] * len(levels), 1.0
        if len(set(levels)) == 1:
            return [1.0] * len(levels), LEVELS / levels[0]
        return [LEVELS / level for level in levels], 1.0


@dataclass(frozen=True)
class DareTies(DareLinear):
    """b + scale * the disjoint merge of m_i d_i / density: their mean with `normalize`, else their sum."""

    normalize: bool = True

    consensus: ClassVar[bool] = True
