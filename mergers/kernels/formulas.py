"""The formulas of averages, task arithmetic and the consensus of signs in one pass over a block, to the bits of those in torch.

`sources` are flat arrays of n elements, as `base` and `out` are. Each kernel does what its counterpart in `methods/` does, one
rounding for one rounding: float32, single multiplications and additions in config order, narrowed once at the end. A block is worked on in
stretches that stay in the first cache, each step a loop that the compiler turns into vector instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mergers.kernels.elements import FUSED, STRICT, finite, fused, narrow, same_sign, wide

__all__ = ["FUSED", "accumulate", "add_products", "add_task_vectors", "consensus", "finite", "interpolate"]
STRETCH = 2048


@njit(**STRICT)
def interpolate(first: Any, second: Any, weight: Any, out: Any) -> None:
    """first + weight * (second - first), from the nearer end; two -0.0 stay so (`linear.interpolate`)."""
    near = weight < np.float32(0.5)
    factor = weight if near else weight - np.float32(1)
    for i in range(len(out)):
        start, end = wide(first[i]), wide(second[i])
        value = narrow(fused(factor, end - start, start if near else end), out)
        out[i] = same_sign(value, first[i], second[i])


@njit(**STRICT)
def accumulate(sources: Any, weights: Any, out: Any) -> None:
    """x_0 - sum_{i>0} w_i (x_0 - x_i) (`linear.accumulate`)."""
    total = np.empty(STRETCH, np.float32)
    for begin in range(0, len(out), STRETCH):
        first, result = sources[0][begin : begin + STRETCH], out[begin : begin + STRETCH]
        for source in range(1, len(sources)):
            add_change(first, sources[source][begin : begin + STRETCH], weights[source], total, source == 1)
        for i in range(len(result)):
            result[i] = narrow(wide(first[i]) - total[i], out)


@njit(**STRICT)
def add_products(sources: Any, coefficients: Any, out: Any) -> None:
    """sum_i c_i x_i (`gram.combine`)."""
    total = np.empty(STRETCH, np.float32)
    for begin in range(0, len(out), STRETCH):
        result = out[begin : begin + STRETCH]
        for source in range(len(sources)):
            values, coefficient = sources[source][begin : begin + STRETCH], coefficients[source]
            if source == 0:
                for i in range(len(values)):
                    total[i] = wide(values[i]) * coefficient
            else:
                for i in range(len(values)):
                    total[i] += wide(values[i]) * coefficient
        for i in range(len(result)):
            result[i] = narrow(total[i], out)


@njit(**STRICT)
def add_task_vectors(sources: Any, base: Any, weights: Any, scale: Any, out: Any) -> None:
    """b - scale * sum_i w_i (b - x_i) (`TaskArithmetic.merge`)."""
    total = np.empty(STRETCH, np.float32)
    for begin in range(0, len(out), STRETCH):
        origin, result = base[begin : begin + STRETCH], out[begin : begin + STRETCH]
        for source in range(len(sources)):
            add_change(origin, sources[source][begin : begin + STRETCH], weights[source], total, source == 0)
        for i in range(len(result)):
            result[i] = narrow(wide(origin[i]) - total[i] * scale, out)


@njit(**STRICT)
def add_change(origin: Any, values: Any, weight: Any, total: Any, first: bool) -> None:
    """Add (origin - values) * weight to a stretch's total, or begin it so."""
    if first:
        for i in range(len(values)):
            total[i] = (wide(origin[i]) - wide(values[i])) * weight
    else:
        for i in range(len(values)):
            total[i] += (wide(origin[i]) - wide(values[i])) * weight


@njit(**STRICT)
def consensus(
    sources: Any, base: Any, least: Any, draws: Any, levels: Any, factors: Any, weights: Any, scale: Any, smallest: Any, out: Any
) -> None:
    """b + scale * the disjoint merge of thinned-out deltas (`deltas.add_consensus`).

    Of source i a change takes part if its magnitude is above least[i] and its draw below levels[i], if it has draws; then it is multiplied
    by factors[i]. `smallest` is the least of the weights for a mean of those that agree, 0 for their sum.
    """
    changes = np.empty((len(sources), STRETCH), np.float32)
    votes, total, divisor = np.empty(STRETCH, np.float32), np.empty(STRETCH, np.float32), np.empty(STRETCH, np.float32)
    for begin in range(0, len(out), STRETCH):
        origin, result = base[begin : begin + STRETCH], out[begin : begin + STRETCH]
        for source in range(len(sources)):
            change = changes[source]
            take_change(origin, sources[source][begin : begin + STRETCH], least[source], change)
            if len(draws[source]):
                drop_drawn(draws[source][begin : begin + STRETCH], levels[source], factors[source], change)
            vote(change, weights[source], votes, source == 0)
        elect(votes)
        total[:] = 0
        divisor[:] = 0
        for source in range(len(sources)):
            join(changes[source], votes, weights[source], total, divisor)
        if smallest > 0:
            for i in range(len(result)):
                mean = total[i] / (divisor[i] if divisor[i] > smallest else smallest)
                result[i] = narrow(wide(origin[i]) - mean * (votes[i] * scale), out)
        else:
            for i in range(len(result)):
                result[i] = narrow(wide(origin[i]) - total[i] * (votes[i] * scale), out)


@njit(**STRICT)
def take_change(origin: Any, values: Any, least: Any, change: Any) -> None:
    """origin - values where that is above `least`, else 0."""
    for i in range(len(values)):
        difference = wide(origin[i]) - wide(values[i])
        change[i] = difference if abs(difference) > least else np.float32(0)


@njit(**STRICT)
def drop_drawn(draws: Any, level: Any, factor: Any, change: Any) -> None:
    """Keep the changes whose draw is below `level`, `factor` times as large."""
    for i in range(len(draws)):
        change[i] = change[i] * (np.float32(1) if draws[i] < level else np.float32(0)) * factor


@njit(**STRICT)
def vote(change: Any, weight: Any, votes: Any, first: bool) -> None:
    """Add a source's votes, or begin with them."""
    if first:
        for i in range(len(change)):
            votes[i] = change[i] * weight
    else:
        for i in range(len(change)):
            votes[i] += change[i] * weight


@njit(**STRICT)
def elect(votes: Any) -> None:
    """The sign of the votes in their place: 1, -1 or 0."""
    one = np.float32(1)
    for i in range(len(votes)):
        votes[i] = one if votes[i] > 0 else (-one if votes[i] < 0 else np.float32(0))


@njit(**STRICT)
def join(change: Any, elected: Any, weight: Any, total: Any, divisor: Any) -> None:
    """Add a source's changes where they agree with the elected sign, and the weight of those that do."""
    nothing = np.float32(0)
    for i in range(len(change)):
        agreeing = change[i] * elected[i]
        held = agreeing > nothing
        total[i] += (agreeing if held else nothing) * weight
        divisor[i] += weight if held else nothing
