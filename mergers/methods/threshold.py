"""Exact order statistics of magnitudes, counted block by block: the k-th largest of a tensor, or of a model, without sorting it.

The bits of a non-negative float32, read as an integer, are in the order of its value, so counting bit patterns finds any order statistic.
Two rounds find one for any set of values: the first counts them by their upper 15 bits, which tells the bin that holds the k-th largest,
the second counts the lower 16 bits inside that bin. Done first on one block in eight, that costs little and guesses the answer for all; the
next round counts, in all blocks, every bit pattern in a bracket around the guess, and how many values lie above it. If the k-th is inside,
it is found; if not (the sample was not typical), the two rounds are done on all blocks. Counts are integers: the answer is exact, whatever
the guess, and depends on no order and no cutting.

Ranks count from the largest: rank 1 is the maximum. Magnitudes are those of float32; float64 values are rounded to it first, to be ranked
(the values themselves keep their precision). NaN ranks above infinity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array

SAMPLE_UPPER, SAMPLE_LOWER, BRACKET, UPPER, LOWER = range(5)
ROUNDS = 5
SAMPLED = 8
"""One block in so many is looked at for the guess."""
LOWER_BITS = 16
UPPER_BINS = 1 << 15
LOWER_BINS = 1 << LOWER_BITS
Ranks = Callable[[int], tuple[int, ...]]
"""From the number of values n to the ranks (1..n) that are wanted, always the same number of them."""


def watches(round_number: int, block_number: int) -> bool:
    """Whether a round looks at a block: the first two at a sample, the others at all."""
    return round_number > SAMPLE_LOWER or block_number % SAMPLED == 0


def likely(round_number: int) -> bool:
    """Whether a round is to be reckoned with: those after the bracket are for when it misses."""
    return round_number <= BRACKET


def needs(round_number: int, known: Array | None) -> bool:
    """Whether a round is needed: not once the magnitudes are found."""
    return known is None or known.dtype != np.float32


def count(round_number: int, values: Sequence[Tensor], known: Array | None) -> Array:
    """What a block adds to a round: int64 counts, [values, 32768] by upper bits, [values, ranks, 65538] of a bracket (with those above and
    below it), or [values, ranks, 65536] by lower bits; `known` is what `find` returned after the round before. The values are used up."""
    if round_number in (SAMPLE_UPPER, UPPER):
        return np.stack([histogram(magnitude_bits(value).bitwise_right_shift_(LOWER_BITS), UPPER_BINS) for value in values])
    if known is None:
        raise RuntimeError("a second counting round needs what the first has found")
    return bracket_counts(values, known[..., 0]) if round_number == BRACKET else lower_counts(values, known[..., 0])


def find(round_number: int, total: Array, known: Array | None, ranks: Ranks | Sequence[Ranks]) -> Array:
    """What the counts tell: float32 [values, ranks], the magnitudes of those ranks, once they are found. Before that int64 [values, ranks,
    2], the bin of each rank and the rank within it, or [values, ranks, 1], the first bit pattern of each bracket. `ranks` are the same for
    all values, or one for each; where there is nothing to count the magnitudes are 0."""
    wanted = [ranks] * len(total) if callable(ranks) else ranks
    if round_number in (SAMPLE_UPPER, UPPER):
        found = [[place(counts, rank) for rank in of(int(counts.sum()))] for counts, of in zip(total, wanted, strict=True)]
        return np.array(found, dtype=np.int64)
    if known is None:
        raise RuntimeError("a second counting round needs what the first has found")
    if round_number == BRACKET:
        return find_inside(total, known, wanted)
    lower = [
        [place(counts, rank)[0] for counts, (_, rank) in zip(tables, row, strict=True)] for tables, row in zip(total, known, strict=True)
    ]
    bits = known[..., 0] << LOWER_BITS | np.array(lower)
    return magnitude_of(bits) if round_number == LOWER else np.maximum(0, bits - LOWER_BINS // 2)[..., None]


def find_inside(total: Array, starts: Array, ranks: Sequence[Ranks]) -> Array:
    """The magnitudes of the ranks if all lie in their brackets, else the brackets again."""
    found = np.zeros(starts.shape[:2], dtype=np.int64)
    for row, column in np.ndindex(found.shape):
        table = total[row, column]
        inside, above, every = table[:LOWER_BINS], table[LOWER_BINS], int(table.sum())
        rank = ranks[row](every)[column] - above
        if every and not 0 < rank <= inside.sum():
            return starts
        found[row, column] = starts[row, column, 0] + place(inside, rank)[0]
    return magnitude_of(found)


def magnitude_of(bits: Array) -> Array:
    """The float32 that has these bits."""
    return bits.astype(np.int32).view(np.float32)


def place(counts: Array, rank: int) -> tuple[int, int]:
    """The bin that holds the value of `rank` (1 = largest), and its rank among the values of that bin; bin 0 if there are fewer values."""
    above = np.cumsum(counts[::-1])
    index = min(int(np.searchsorted(above, rank)), len(counts) - 1)
    found = len(counts) - 1 - index
    return found, int(rank - (above[index] - counts[found]))


def magnitude_bits(values: Tensor) -> Tensor:
    """The bits of |values| in float32, as int32 [n]: in the order of the magnitudes. The values are used up."""
    import torch

    return values.float().abs_().view(torch.int32).view(-1)


def bracket_counts(values: Sequence[Tensor], starts: Array) -> Array:
    """For each bracket of 65536 bit patterns from a start: how often each occurs, how many values lie above, how many below."""
    import torch

    result = np.zeros((*starts.shape, LOWER_BINS + 2), dtype=np.int64)
    for value, row, counts in zip(values, starts, result, strict=True):
        bits = magnitude_bits(value).numpy()
        for start, table in zip(row.tolist(), counts, strict=True):
            reaches, above = bits >= start, bits >= start + LOWER_BINS
            inside = bits[np.flatnonzero(reaches ^ above)] - np.int32(start)
            table[:LOWER_BINS] = histogram(torch.from_numpy(inside), LOWER_BINS)
            table[LOWER_BINS:] = (higher := np.count_nonzero(above)), len(bits) - len(inside) - higher
    return result


def lower_counts(values: Sequence[Tensor], bins: Array) -> Array:
    """For each of a value's `bins`, how many of its elements in that bin have which lower 16 bits: int64 [values, bins, 65536]."""
    import torch

    # Few elements lie in one bin, so they are picked out first, by numpy: torch takes ten times as long to do it.
    picked: list[Array] = []
    for value, row in zip(values, bins, strict=True):
        bits = magnitude_bits(value)
        array, upper = bits.numpy(), (bits >> LOWER_BITS).numpy()
        first = len(picked)
        picked += [array[upper == each] & (LOWER_BINS - 1) | (first + place) << LOWER_BITS for place, each in enumerate(row)]
    return histogram(torch.from_numpy(np.concatenate(picked)), len(picked) * LOWER_BINS).reshape(*bins.shape, LOWER_BINS)


def histogram(values: Tensor, bins: int) -> Array:
    """How often each of 0..bins-1 occurs, int64. (Not np.bincount: it holds the GIL.)"""
    import torch

    return torch.bincount(values, minlength=bins).numpy()


def keep_largest(density: float) -> Ranks:
    """The rank of the smallest value to keep: of n values the k = floor(density * n) largest are kept (in float64, as written; at least
    1), and all that equal the k-th."""
    return lambda n: (max(1, int(density * n)),)


def keep_band(density: float, outliers: float) -> Ranks:
    """The ranks of the largest and of the smallest value to keep: of n values the t = floor(outliers * n) largest are dropped, the next
    k = floor(density * n) (at least 1) are kept, and all that equal the first or the last of them."""

    def ranks(n: int) -> tuple[int, int]:
        kept = max(1, int(density * n))
        dropped = max(0, min(int(outliers * n), n - kept))
        return dropped + 1, dropped + kept

    return ranks


def drop_below(values: Tensor, least: float) -> Tensor:
    """The values with those of magnitude below `least` set to 0; NaN stays. The values may be used up."""
    import torch

    if least == 0:
        return values
    if values.dtype == torch.float32:  # one pass instead of three: 0 where |value| <= the float32 just below `least`
        return torch.nn.functional.hardshrink(values, float(np.nextafter(np.float32(least), np.float32(0))))
    return values.mul_(magnitudes(values).ge_(least))


def drop_above(values: Tensor, most: float) -> Tensor:
    """The values with those of magnitude above `most` set to 0; NaN and infinity become NaN. The values are used up."""
    return values.mul_(magnitudes(values).le_(most))


def magnitudes(values: Tensor) -> Tensor:
    """|values| as they are ranked, in float32; fresh memory."""
    import torch

    return values.abs() if values.dtype == torch.float32 else values.float().abs_()
