"""Adding up what blocks report in a counting round, to the same bits in any order.

Counts (int64) are added as they come. Partial sums (float64) are kept block by block and added by `math.fsum`, which rounds once, at the
end: so the total does not depend on how the work was cut, who did it, or when it came in.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mergers.merger import Array


class Tally:
    """What blocks have reported so far of one tensor, or of the whole model. Picklable."""

    def __init__(self) -> None:
        self.counts: Array | None = None
        self.sums: list[Array] = []

    def add(self, observation: Array) -> None:
        """Add one block's report."""
        if observation.dtype == np.int64:
            self.room(observation.shape)[: len(observation)] += observation  # a pooled method has rows up to its last source's only
        elif observation.dtype == np.float64:
            self.sums.append(observation)
        else:
            raise TypeError(f"observe must return int64 counts or float64 sums, got {observation.dtype}")

    def room(self, shape: tuple[int, ...]) -> Array:
        """The counts so far, with `shape[0]` rows at least: to be added to in place."""
        if self.counts is None or len(self.counts) < shape[0]:
            known, self.counts = self.counts, np.zeros(shape, dtype=np.int64)
            if known is not None:
                self.counts[: len(known)] = known
        return self.counts

    def join(self, other: Tally) -> None:
        """Add what another tally holds."""
        if other.counts is not None:
            self.add(other.counts)
        self.sums += other.sums

    def __getstate__(self) -> tuple[Any, list[Array]]:
        """What is pickled: of counts, which are mostly 0, only the others."""
        if self.counts is None:
            return None, self.sums
        places = np.flatnonzero(self.counts).astype(np.int32)
        return (self.counts.shape, places, self.counts.ravel()[places]), self.sums

    def __setstate__(self, state: tuple[Any, list[Array]]) -> None:
        packed, self.sums = state
        self.counts = None
        if packed is not None:
            shape, places, values = packed
            self.counts = np.zeros(shape, dtype=np.int64)
            self.counts.ravel()[places] = values

    def total(self) -> Array:
        """The sum of all reports."""
        if self.counts is not None:
            return self.counts
        stacked = np.stack(self.sums)
        columns = stacked.reshape(len(stacked), -1).T
        return np.array([exact_sum(column) for column in columns]).reshape(stacked.shape[1:])


def exact_sum(values: Array) -> float:
    """The correctly rounded sum; NaN if a value is not finite."""
    return math.fsum(values) if np.isfinite(values).all() else math.nan
