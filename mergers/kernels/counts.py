"""What counting rounds add up, in one pass over a block: magnitudes of changes, exactly, and dot products, in a fixed order.

`places` are counters that are added to. A magnitude is the bits of |base - source| in float32 (`threshold.py`). Dot products go into LANES
sums, element i into lane i modulo LANES, which are then added pairwise; `gram.gram_of` does the same by numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mergers.kernels.elements import STRICT, wide
from mergers.methods.gram import LANES
from mergers.methods.threshold import LOWER_BINS, LOWER_BITS

STRETCH = 2048


@njit(**STRICT)
def take_magnitudes(values: Any, origin: Any, bits: Any) -> None:
    """The bits of |origin - values|."""
    for i in range(len(values)):
        bits[i] = np.float32(wide(origin[i]) - wide(values[i])).view(np.int32) & np.int32(0x7FFFFFFF)


@njit(**STRICT)
def add_upper(source: Any, base: Any, places: Any) -> None:
    """Count magnitudes by their upper bits."""
    bits = np.empty(STRETCH, np.int32)
    for begin in range(0, len(source), STRETCH):
        values = source[begin : begin + STRETCH]
        take_magnitudes(values, base[begin : begin + STRETCH], bits)
        for i in range(len(values)):
            places[np.uint32(bits[i]) >> np.uint32(LOWER_BITS)] += 1


@njit(**STRICT)
def add_bracket(source: Any, base: Any, start: Any, places: Any) -> None:
    """Count each magnitude in the bracket from `start` on; behind them those above it and those below."""
    bits = np.empty(STRETCH, np.int32)
    first = np.int32(start)
    above: Any = 0
    inside = 0
    for begin in range(0, len(source), STRETCH):
        values = source[begin : begin + STRETCH]
        take_magnitudes(values, base[begin : begin + STRETCH], bits)
        higher = np.int32(0)
        for i in range(len(values)):
            higher += np.int32(bits[i] - first >= np.int32(LOWER_BINS))
        above += higher
        for i in range(len(values)):
            place = np.uint32(bits[i] - first)
            if place < np.uint32(LOWER_BINS):
                places[place] += 1
                inside += 1
    places[LOWER_BINS] += above
    places[LOWER_BINS + 1] += len(source) - inside - above


@njit(**STRICT)
def add_lower(source: Any, base: Any, upper: Any, places: Any) -> None:
    """Count by their lower bits the magnitudes that have these upper bits."""
    bits = np.empty(STRETCH, np.int32)
    wanted = np.uint32(upper)
    for begin in range(0, len(source), STRETCH):
        values = source[begin : begin + STRETCH]
        take_magnitudes(values, base[begin : begin + STRETCH], bits)
        for i in range(len(values)):
            each = np.uint32(bits[i])
            if each >> np.uint32(LOWER_BITS) == wanted:
                places[each & np.uint32(LOWER_BINS - 1)] += 1


@njit(**STRICT)
def dot(first: Any, second: Any) -> float:
    """<x, y>, products and sums in float64."""
    lanes = np.zeros(LANES)
    for begin in range(0, len(first), LANES):
        left, right = first[begin : begin + LANES], second[begin : begin + LANES]
        for i in range(len(left)):
            lanes[i] += np.float64(wide(left[i])) * np.float64(wide(right[i]))
    return sum_of_lanes(lanes)


@njit(**STRICT)
def dot_of_changes(first: Any, second: Any, base: Any) -> float:
    """<x - b, y - b>, differences, products and sums in float64."""
    lanes = np.zeros(LANES)
    for begin in range(0, len(first), LANES):
        left, right, origin = first[begin : begin + LANES], second[begin : begin + LANES], base[begin : begin + LANES]
        for i in range(len(left)):
            start = np.float64(wide(origin[i]))
            lanes[i] += (np.float64(wide(left[i])) - start) * (np.float64(wide(right[i])) - start)
    return sum_of_lanes(lanes)


@njit(**STRICT)
def sum_of_lanes(lanes: Any) -> float:
    """Halves added to each other until one number is left."""
    count = len(lanes)
    while count > 1:
        count //= 2
        for i in range(count):
            lanes[i] += lanes[count + i]
    return lanes[0]
