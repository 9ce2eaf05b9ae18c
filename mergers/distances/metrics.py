"""How far two checkpoints are apart: sums over elements, from which every distance of a tensor, a group of tensors or the model follows.

For vectors a and b (weights, or task vectors x - base where there is a base):
    l2                  ||a - b||
    relative_l2         ||a - b|| / ||a||,  a the first of the two
    cosine              a.b / (||a|| ||b||)
    sign_disagreement   of the positions where neither is 0, the share where the signs differ
    ssd                 soft sign dissimilarity, 1 - mean_i |a_i + b_i| / (|a_i| + |b_i|) over the positions where not both are 0: in
                        [0, 1], 0 where all signs agree; where they differ, by how evenly
    truncated_ssd       ssd of a and b of which, in each tensor, only the `density` share of largest magnitude is kept, the rest set to 0
SSD and its truncated form are this project's own definitions, inspired by the weight distances of arXiv 2304.14933 (section on distance
between modality weights); where that paper cuts off is not known, so the cut is that of TIES (arXiv 2306.01708, step 1).

All of them are functions of sums, and sums of tensors add up: a group's value is that of its elements taken together, never a mean of its
tensors' values. Computed in float64, added with `math.fsum`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import combinations
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from foundation.errors import ConfigError
from mergers.merger import Inputs, Method, Need
from mergers.methods.threshold import ROUNDS, count, drop_below, find, keep_largest, likely, needs, watches

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array

METRICS = ("l2", "relative_l2", "cosine", "sign_disagreement", "ssd", "truncated_ssd")
TINY = float(np.finfo(np.float64).tiny)


class Column(IntEnum):
    """What is added up for a pair (a, b)."""

    ELEMENTS = 0
    SQUARED_DIFFERENCE = 1
    SQUARED_FIRST = 2
    SQUARED_SECOND = 3
    PRODUCT = 4
    NEITHER_ZERO = 5
    SIGNS_DIFFER = 6
    AGREEMENT = 7
    """Sum of |a + b| / (|a| + |b|)."""
    NOT_BOTH_ZERO = 8
    TRUNCATED_AGREEMENT = 9
    TRUNCATED_NOT_BOTH_ZERO = 10


@dataclass(frozen=True)
class Distance(Method):
    """Measures all pairs of the sources of a tensor in the counting rounds of a merge method; of task vectors where there is a base. It
    merges nothing.

    The last round's total is float64 [pairs, columns], pairs in the order of `combinations`. `density` is the share that the truncated SSD
    keeps of each tensor; 1 keeps all, and saves the rounds that find the cuts.
    """

    density: float = 0.2

    base: ClassVar[Need] = Need.OPTIONAL

    @property
    def rounds(self) -> int:
        """Those that find each vector's cut, and one of sums."""
        return 1 + (ROUNDS if self.density < 1 else 0)

    @property
    def last(self) -> int:
        """The round of sums."""
        return self.rounds - 1

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there are two sources or more and 0 < density <= 1."""
        if len(source_names) < 2:
            raise ConfigError(f"a distance needs at least 2 checkpoints, got {len(source_names)}; name another")
        if not 0 < self.density <= 1:
            raise ConfigError(
                f"density is {self.density}; it is the share of each tensor that the truncated SSD keeps, above 0 and at most 1"
            )

    def watches(self, round_number: int, block_number: int) -> bool:
        """Every block in the round of sums; a sample may do to guess the cuts."""
        return round_number == self.last or watches(round_number, block_number)

    def likely(self, round_number: int) -> bool:
        """Whether a round is to be reckoned with."""
        return round_number == self.last or likely(round_number)

    def needs(self, round_number: int, known: Array | None) -> bool:
        """The round of sums always, the others until the cuts are found."""
        return round_number == self.last or needs(round_number, known)

    def observe(self, round_number: int, inputs: Inputs) -> Array:
        """Counts of magnitudes in the first rounds, sums [pairs, columns] in the last."""
        values = vectors(inputs)
        if round_number < self.last:
            return count(round_number, values, inputs.known)
        whole = [sums_of(first, second) for first, second in combinations(values, 2)]
        if inputs.known is None:
            return np.array([[*row, *row[-2:]] for row in whole])
        kept = [drop_below(value, least) for value, (least,) in zip(values, inputs.known.tolist(), strict=True)]
        truncated = [agreement(first + second, first - second) for first, second in combinations(kept, 2)]
        return np.array([[*row, *more] for row, more in zip(whole, truncated, strict=True)])

    def summarize(self, round_number: int, total: Array, known: Array | None) -> Array:
        """Each vector's cut, float32 [vectors, 1], before the round of sums; after it the sums."""
        return total if round_number == self.last else find(round_number, total, known, keep_largest(self.density))


def vectors(inputs: Inputs) -> list[Tensor]:
    """The weights of each source, or what each has learned since the base: float64, fresh memory."""
    import torch

    if inputs.base is None:
        return [tensor.to(torch.float64, copy=True) for tensor in inputs.tensors]
    base = inputs.base.double()
    return [tensor.double() - base for tensor in inputs.tensors]


def sums_of(first: Tensor, second: Tensor) -> list[float]:
    """The columns of a pair up to those of the truncated SSD."""
    import torch

    apart = first - second
    product = first * second
    return [
        first.numel(),
        torch.dot(apart, apart).item(),
        torch.dot(first, first).item(),
        torch.dot(second, second).item(),
        product.sum().item(),
        torch.count_nonzero(product).item(),
        torch.count_nonzero(product < 0).item(),
        *agreement(first + second, apart),
    ]


def agreement(together: Tensor, apart: Tensor) -> tuple[float, float]:
    """Sum of |a + b| / (|a| + |b|), and the number of positions where not both are 0, from a + b and a - b, which are used up.

    |a| + |b| is the larger of |a + b| and |a - b|, so the ratio is exactly 1 where the signs agree.
    """
    import torch

    together.abs_()
    largest = torch.maximum(together, apart.abs_())
    positions = torch.count_nonzero(largest).item()
    return together.div_(largest.clamp_(min=TINY)).sum().item(), positions


def metrics_of(sums: Array) -> dict[str, float | None]:
    """Metric -> value of a pair from its sums [columns]; None where it is not defined, as a cosine with a vector of zeros."""
    value = [float(number) for number in sums]
    norms = math.sqrt(value[Column.SQUARED_FIRST] * value[Column.SQUARED_SECOND])
    l2, first = math.sqrt(value[Column.SQUARED_DIFFERENCE]), math.sqrt(value[Column.SQUARED_FIRST])
    agreeing = ratio(value[Column.AGREEMENT], value[Column.NOT_BOTH_ZERO])
    truncated = ratio(value[Column.TRUNCATED_AGREEMENT], value[Column.TRUNCATED_NOT_BOTH_ZERO])
    cosine = ratio(value[Column.PRODUCT], norms)
    return {
        "l2": l2,
        "relative_l2": ratio(l2, first),
        "cosine": None if cosine is None else min(1.0, max(-1.0, cosine)),
        "sign_disagreement": ratio(value[Column.SIGNS_DIFFER], value[Column.NEITHER_ZERO]),
        "ssd": None if agreeing is None else 1 - agreeing,
        "truncated_ssd": None if truncated is None else 1 - truncated,
    }


def ratio(part: float, whole: float) -> float | None:
    """part / whole; None for a whole of 0."""
    return part / whole if whole else None
