"""What SLERP, spherical averages, the Karcher mean and model stock share: one look at the whole tensor, then a linear combination.

All of them merge the N flattened tensors x_i (or their deltas d_i = x_i - base) into  sum_i c_i x_i,  and everything their formulas ask
for (norms, angles, means on the sphere, even iterated ones) follows from the N x N matrix of dot products G_ij = <x_i, x_j>, the Gram
matrix. So one counting round adds up G, the formula is worked out in N numbers in float64 whatever the size of the tensor, and the writing
pass is a weighted sum in float32.

Directions on the unit sphere need no more: m = sum_i a_i u_i with u_i = x_i / |x_i| is N coefficients, and N vectors in N dimensions that
have the same cosines as the u_i stand in for them (`unit_vectors`).

Where no direction is defined (tensors of zeros, opposite tensors) the straight weighted average takes the place of the curved one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import InputError
from mergers.merger import Inputs, Method
from mergers.methods.linear import average, compute_dtype

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array

PARALLEL = 0.9995
"""Cosine beyond which two directions count as parallel, below its negative as opposite: an arc of less than 1.9 degrees. As mergekit."""
LANES = 1024
"""Sums that a dot product is added up in, a power of 2: many, so that any vector unit has enough to do; part of the algorithm."""
SHORTEST_MEAN = math.sqrt((1 - PARALLEL) / 2)
"""Length below which a mean of unit vectors gives no direction: that of the mean of two vectors which just count as opposite."""


class GramMethod(Method):
    """A method that needs the Gram matrix of a tensor's sources, or of their deltas where there is a base. `known` is that matrix.

    The coefficients need not sum to 1, so a block that is the same in all sources is scaled like the rest of its tensor.
    """

    copies_equal: ClassVar[bool] = False

    @property
    def rounds(self) -> int:
        """One: the dot products."""
        return 1

    def observe(self, round_number: int, inputs: Inputs) -> Array:
        """One block's share of the Gram matrix, float64 [N, N]."""
        return gram_of(inputs.tensors, inputs.base)

    def summarize(self, round_number: int, total: Array, known: Array | None) -> Array:
        """The Gram matrix itself: which sources its rows belong to is known to `merge` only."""
        return total


def gram_of(tensors: Sequence[Tensor], base: Tensor | None = None) -> Array:
    """<x_i, x_j> of equally shaped tensors, or of x_i - base: float64 [N, N], symmetric.

    Products and differences are taken in float64, where those of half-precision numbers are exact, and added up in float64: each entry is
    within n * 2^-53 of sum |x_i x_j|, below 1e-10 of it for a block of 2^18 elements. The order is fixed, element i into lane i modulo
    LANES and the lanes in pairs, so the bits depend neither on the processor nor on where a file happened to be mapped.
    """
    import numpy as np

    origin = 0.0 if base is None else in_lanes(base)
    rows = [in_lanes(tensor) - origin for tensor in tensors]
    gram = np.empty((len(rows), len(rows)))
    for i, row in enumerate(rows):
        for j, other in enumerate(rows[: i + 1]):
            gram[i, j] = gram[j, i] = sum_of_lanes(np.add.reduce(row * other, axis=0, initial=0.0))
    return gram


def in_lanes(tensor: Tensor) -> Array:
    """A tensor's elements in float64, [n / LANES, LANES], filled up with zeros."""
    import numpy as np
    import torch

    rows = np.zeros((-(-tensor.numel() // LANES), LANES))
    rows.reshape(-1)[: tensor.numel()] = tensor.reshape(-1).to(torch.float64).numpy()
    return rows


def sum_of_lanes(lanes: Array) -> float:
    """Halves added to each other until one number is left."""
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = lanes[:half] + lanes[half:]
    return float(lanes[0])


def known_gram(inputs: Inputs) -> Array:
    """The Gram matrix that the counting round led to; InputError if a value in the tensor was not finite."""
    if inputs.known is None:
        raise RuntimeError(f"tensor '{inputs.name}' has come without its Gram matrix; the counting round was left out")
    if not all(math.isfinite(value) for row in inputs.known.tolist() for value in row):
        raise InputError(
            f"tensor '{inputs.name}' has no norms and angles: a value in {', '.join(inputs.sources) or 'a source'} is NaN, infinite or too "
            "large to be squared in float64; mend that checkpoint, or merge it by an elementwise method (weighted_average)"
        )
    return inputs.known


def combine(tensors: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """sum_i c_i x_i in the compute dtype, added up in the order given; fresh memory, or a source itself where only that one counts.

    Coefficients that make an average (none negative, sum 1 within 1e-12) go to `linear.average`, which keeps equal elements bit for bit.
    """
    if is_average(coefficients):
        return average(tensors, coefficients)
    dtype = compute_dtype(tensors)
    total: Tensor | None = None
    for tensor, coefficient in zip(tensors, coefficients, strict=True):
        term = tensor * coefficient if tensor.dtype == dtype else tensor.to(dtype).mul_(coefficient)
        total = term if total is None else total.add_(term)
    assert total is not None
    return total


def is_average(coefficients: Sequence[float]) -> bool:
    """Whether these coefficients are weights: none negative, and their sum 1 but for rounding."""
    return min(coefficients) >= 0 and abs(math.fsum(coefficients) - 1) <= 1e-12


def spherical_mean(gram: Array, weights: Sequence[float], steps: int, tolerance: float = 0.0) -> tuple[tuple[float, ...], float]:
    """Coefficients of the mean direction times the mean norm, and the length of the last step (an angle in radians).

    Starts at the normalised weighted mean m of the unit vectors and moves `steps` times along the weighted mean of the log maps,
        m <- exp_m( sum_i w_i log_m(u_i) ),    log_m(u) = (phi / sin phi) (u - cos phi m),    cos phi = <m, u>,
    or until a step is no longer than `tolerance`. A source of zeros has no direction: it counts in the mean norm only. Where the mean is
    shorter than SHORTEST_MEAN, or a source lies opposite to it, the result is the straight average: the weights themselves, step 0.
    Cached: every block of a tensor asks the same.
    """
    return cached_spherical_mean(gram.tobytes(), tuple(weights), steps, tolerance)


@lru_cache(maxsize=256)
def cached_spherical_mean(gram_bytes: bytes, weights: tuple[float, ...], steps: int, tolerance: float) -> tuple[tuple[float, ...], float]:
    """See `spherical_mean`."""
    import numpy as np

    gram = np.frombuffer(gram_bytes).reshape(len(weights), -1)
    norms, pull = np.sqrt(gram.diagonal()), np.array(weights)
    held = np.flatnonzero((norms > 0) & (pull > 0))
    if not len(held):
        return weights, 0.0
    units, pull = unit_vectors(cosines(gram)[np.ix_(held, held)]), pull[held] / pull[held].sum()
    length = float(np.linalg.norm(pull @ units))
    if length < SHORTEST_MEAN:
        return weights, 0.0
    mean, step = pull / length, 0.0
    for _ in range(steps):
        towards = np.clip(units @ (mean @ units), -1.0, 1.0)
        if towards.min() < -PARALLEL:
            return weights, 0.0
        angle = np.arccos(towards)
        stretched = pull * np.where(angle > 1e-7, angle / np.maximum(np.sin(angle), 1e-7), 1.0)
        move = stretched - mean * (stretched @ towards)
        step = float(np.linalg.norm(move @ units))
        if step <= tolerance:
            break
        mean = math.cos(step) * mean + math.sin(step) / step * move
        mean = mean / np.linalg.norm(mean @ units)
    coefficients = np.zeros(len(weights))
    coefficients[held] = float(np.array(weights) @ norms) * mean / norms[held]
    return tuple(coefficients.tolist()), step


def unit_vectors(cosine: Array) -> Array:
    """Unit vectors with these cosines, [N, N], one per row: the sources' directions, turned into as few dimensions as they need.

    From the eigenvectors of the matrix, so that directions that depend on each other (more sources than elements) do no harm.
    """
    import numpy as np

    values, vectors = np.linalg.eigh(cosine)
    rows = vectors * np.sqrt(np.maximum(values, 0.0))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cosines(gram: Array) -> Array:
    """Cosines between the tensors of a Gram matrix, [N, N] in [-1, 1]; 0 with a tensor of zeros, 1 of each other with itself.

    Within 1e-15 of 1, which is as close as float64 sums tell, they are 1: so equal tensors are parallel to the bit.
    """
    import numpy as np

    norms = np.sqrt(gram.diagonal())
    scale = np.where(norms > 0, norms, 1.0)
    cosine = gram / scale[:, None] / scale[None, :]
    cosine = np.where(np.abs(cosine) > 1 - 1e-15, np.sign(cosine), cosine)
    np.fill_diagonal(cosine, (norms > 0).astype(float))
    return cosine
