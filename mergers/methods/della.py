"""DELLA: drop changes at random, small ones more often than large ones (Deep et al. 2024, arXiv 2406.11617, section 3, MagPrune).

In each row of a weight (what flows into one output) changes are ranked by magnitude, and the probability of being kept rises linearly with
the rank, from density - spread / 2 for the smallest to density + spread / 2 for the largest. A kept change is divided by its own
probability of being kept, so that the expectation of each is the change itself:  d_i' = m_i d_i / p_i.
`DellaLinear` adds them up, b + scale * sum_i w_i d_i'; `Della` puts them together by the sign consensus of TIES (the paper's elect and fuse
steps, arXiv 2306.01708).

`spread` is the paper's epsilon, the full width of the range; mergekit's epsilon is half of it (density - epsilon .. density + epsilon), and
mergekit rescales by a ratio of L1 norms instead of 1 / p_i. The probability of rank r = 0..n-1 is density + spread * ((r + 1/2) / n - 1/2):
the paper's steps of spread / n, moved by half a step, so that they average to `density` in every row and a row of one element is kept with
just that. Probabilities are taken to the nearest multiple of 2^-16, and the rescaling uses them as taken. Equal magnitudes are ranked by
their place in the row. float64 changes are ranked by their float32 magnitude. A vector is one row.

Masks are addressed by (seed, source name, tensor name, block of rows), see `draws.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foundation.errors import ConfigError
from mergers.merger import Granularity, Inputs
from mergers.methods.deltas import base_of
from mergers.methods.draws import LEVELS, block_draws, level_of
from mergers.methods.sparse import SparseMethod, at, by_source, check_fractions
from mergers.methods.threshold import magnitudes

if TYPE_CHECKING:
    from torch import Tensor

RADIX_COLUMNS = 1000
"""Rows from this length on are ranked by radix, which is faster from about here."""


@dataclass(frozen=True)
class DellaLinear(SparseMethod):
    """b + scale * sum_i w_i m_i d_i / p_i, with `normalize` divided by sum_i w_i. Whole rows, no counting rounds."""

    density: float | tuple[float, ...]
    spread: float | tuple[float, ...] = 0.2
    weights: tuple[float, ...] | None = None
    scale: float = 1.0
    seed: int = 0
    normalize: bool = False
    rescale: bool = True

    granularity: ClassVar[Granularity] = Granularity.ROW

    def check_sparsity(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless density - spread / 2 is above 0 (also as a multiple of 2^-16) and density + spread / 2 at most 1, each
        one for all sources or one per source."""
        check_fractions("density", self.density, source_names, "the probability that a change is kept, on average,")
        meaning = "how far apart the probabilities of the smallest and the largest change are"
        check_fractions("spread", self.spread, source_names, meaning, zero=True)
        for whose, (density, spread) in by_source(source_names, self.density, self.spread):
            low, high = density - spread / 2, density + spread / 2
            if level_of(low) < 1 or level_of(high) > LEVELS:
                widest = f"{'at most' if density > 0.5 else 'below'} {2 * min(density, 1 - density):.6g}"
                raise ConfigError(
                    f"density {density} with spread {spread}{whose} asks for probabilities from {low:.6g} to {high:.6g}; they must lie "
                    f"above 0 and at most at 1: keep spread {widest}, or move density"
                )

    def kept(self, position: int) -> str:
        """The share kept."""
        density, spread = at(self.density, position), at(self.spread, position)
        return f"{density:.4g} of its changes at random, the larger the likelier (spread {spread:.4g}, seed {self.seed})"

    def merge(self, inputs: Inputs) -> Tensor:
        """The merged piece, [rows, columns]."""
        drops = [level_of(at(self.density, position)) < LEVELS for position in inputs.positions]
        if not any(drops):
            return self.merge_whole(inputs)
        base = base_of(inputs)
        changes = self.changes(inputs, base)
        for index, change in enumerate(changes):
            if drops[index]:
                change *= self.multipliers(change, inputs, index)
        return self.combine(inputs, base, changes)

    def multipliers(self, change: Tensor, inputs: Inputs, index: int) -> Tensor:
        """What each change is multiplied with: 0 where it is dropped, else 1 / p (1 without `rescale`)."""
        import torch

        position = inputs.positions[index]
        levels, inverse = rank_tables(change.shape[1], at(self.density, position), at(self.spread, position))
        order = torch.from_numpy(rank_order(magnitudes(change)))
        level = torch.empty_like(order, dtype=torch.float32).scatter_(1, order, levels.expand(order.shape))
        mask = torch.from_numpy(block_draws(self.seed, inputs, index).astype(np.float32)).view(change.shape).lt_(level).to(change.dtype)
        if self.rescale:
            mask *= torch.empty_like(mask).scatter_(1, order, inverse.to(mask.dtype).expand(order.shape))
        return mask


@dataclass(frozen=True)
class Della(DellaLinear):
    """b + scale * the disjoint merge of m_i d_i / p_i: their mean with `normalize`, else their sum."""

    normalize: bool = True

    consensus: ClassVar[bool] = True


def rank_order(magnitudes: Tensor) -> np.ndarray:
    """For each row the places of its elements from the smallest magnitude to the largest, equal ones from left to right; int64.

    Either way gives this order. Short rows: sort the bits of the magnitude with the place behind them, of which no two are equal. Long
    ones: sort by the lower 16 bits, then by the upper ones, each time stably; numpy sorts 16-bit keys by radix, so the time does not grow
    with the row.
    """
    import torch

    bits = magnitudes.view(torch.int32)
    if bits.shape[1] < RADIX_COLUMNS:
        keys = bits.numpy().astype(np.int64)
        keys <<= 32
        keys |= np.arange(keys.shape[1], dtype=np.int64)
        keys.sort(axis=1)
        keys &= (1 << 32) - 1
        return keys
    lower = stable_order(bits.to(torch.int16))
    return lower.gather(1, stable_order((bits >> 16).to(torch.int16).gather(1, lower))).numpy()


def stable_order(keys: Tensor) -> Tensor:
    """For each row the places of its 16-bit keys, read without sign, in ascending order, equal ones from left to right; int64."""
    import torch

    return torch.from_numpy(keys.numpy().view(np.uint16).argsort(axis=1, kind="stable"))


@lru_cache(maxsize=64)
def rank_tables(count: int, density: float, spread: float) -> tuple[Tensor, Tensor]:
    """The probability of being kept of each rank 0..count-1 in multiples of 2^-16 (float32), and 1 over it (float64). Not to be
    changed."""
    import torch

    probabilities = density + spread * ((np.arange(count) + 0.5) / count - 0.5)
    levels = np.rint(probabilities * LEVELS)
    return torch.from_numpy(levels.astype(np.float32)), torch.from_numpy(LEVELS / levels)
