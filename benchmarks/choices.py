"""Where two right implementations may differ: elements at which a method must choose among equals, and the choice is nobody's to make.

A sparse method keeps the k largest of n changes. Of those that are equal in magnitude to the k-th, this project keeps all and mergekit
whichever its sort leaves in front; differences of bfloat16 numbers lie on a coarse grid, so such equals are many. An election of signs can
end in a draw; then this project adds nothing, as the paper's formula has it, and mergekit lets the positive ones win. And where all sources
changed by the same, mergekit's SCE does not count the element among those of which it selects a share.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks.checkpoints import Array

NEAR = 1e-6
"""What counts as equal for sums and variances, which both sides round: a relative difference of 8 units of float32."""


def at_edges(deltas: Sequence[Array], density: float, outliers: float = 0.0) -> Array:
    """Elements where a change is as large as the largest or the smallest kept: the `density` share that comes after the outliers."""
    edges = [edges_of(delta, density, outliers) for delta in deltas]
    near = [np.isin(np.abs(delta), found[1:] if outliers == 0 else found) for delta, found in zip(deltas, edges, strict=True)]
    return np.any(near, axis=0)


def kept(delta: Array, density: float, outliers: float = 0.0) -> Array:
    """The change with all but the kept elements set to 0."""
    most, least = edges_of(delta, density, outliers)
    return np.where((np.abs(delta) <= most) & (np.abs(delta) >= least), delta, 0)


def edges_of(delta: Array, density: float, outliers: float) -> tuple[float, float]:
    """The largest and the smallest magnitude that is kept."""
    dropped = int(outliers * delta.size)
    last = min(dropped + max(1, int(density * delta.size)), delta.size) - 1
    return ranked(np.abs(delta), dropped), ranked(np.abs(delta), last)


def at_variance(deltas: Sequence[Array], share: float) -> Array:
    """Elements whose variance over the sources lies where selection ends: of all elements here, of those with any variance in mergekit."""
    variance = np.var(deltas, axis=0, ddof=1)
    first, last = (ranked(variance, max(1, int(share * count)) - 1) for count in (np.count_nonzero(variance), variance.size))
    return (variance >= last * (1 - NEAR)) & (variance <= first * (1 + NEAR))


def drawn(deltas: Sequence[Array], weights: Sequence[float]) -> Array:
    """Elements where the weighted changes add up to nothing."""
    parts = [weight * delta for weight, delta in zip(weights, deltas, strict=True)]
    return np.abs(np.sum(parts, axis=0)) <= NEAR * np.sum(np.abs(parts), axis=0)


def ranked(values: Array, rank: int) -> float:
    """The value of that rank, 0 for the largest."""
    place = values.size - 1 - rank
    return float(np.partition(values.ravel(), place)[place])
