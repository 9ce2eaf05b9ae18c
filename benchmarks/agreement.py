"""How far two checkpoints of the same model lie apart, element by element."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.checkpoints import NUMPY_DTYPES, Array
from mergers.checkpoints.checkpoint import read_checkpoint
from mergers.checkpoints.header import TensorEntry

BLOCK_ELEMENTS = 1 << 22
MANTISSA_BITS = {"BF16": 8, "F32": 24}
"""Bits of precision, the leading one included."""
SUM_ERROR = 2.0**-20
"""How far float32 sums on either side may lie apart, as a share of the tensor's largest value: 16 units of float32."""


@dataclass(frozen=True)
class Agreement:
    """The comparison of two checkpoints.

    `equal` is the share of elements with the same bits; `excused` is the share of those that differ where they may (see `compare`). All
    else is said of the others. `steps` is the largest difference in units in the last place of the larger of the two values, after taking
    off the slack that the sums before rounding are allowed: values that cancel to near zero have no digits to compare. `relative` is the
    largest difference as a share of its tensor's largest value. `beyond` is the share of elements that differ by more than one such step,
    and `where` the tensor with the largest.
    """

    elements: int
    equal: float
    excused: float
    steps: float
    relative: float
    beyond: float
    where: str


Excuse = Callable[[str], Array]
"""Gives, for a tensor's name, the elements (flat, bool) that are allowed to differ."""


def compare(left: Path, right: Path, excuse: Excuse | None = None, slack: float = SUM_ERROR) -> Agreement:
    """The agreement of two checkpoint directories; ValueError if names, shapes or dtypes differ."""
    first, second = (read_checkpoint(path).tensors for path in (left, right))
    described = [{name: (entry.dtype, entry.shape) for name, entry in tensors.items()} for tensors in (first, second)]
    if described[0] != described[1]:
        odd = sorted(set(described[0].items()) ^ set(described[1].items()))
        raise ValueError(f"{left} and {right} do not hold the same tensors: {odd[0]}, and {len(odd) - 1} more entries")
    elements = equal = excused = beyond = 0
    steps, relative, where = 0.0, 0.0, ""
    for name, entry in first.items():
        mine, theirs = values_of(entry), values_of(second[name])
        scale = max(largest(mine, entry.dtype), largest(theirs, entry.dtype))
        free = excuse(name) if excuse else None
        for start in range(0, len(mine), BLOCK_ELEMENTS):
            block = slice(start, start + BLOCK_ELEMENTS)
            elements += len(mine[block])
            differs = bits(mine[block]) != bits(theirs[block])
            equal += int((~differs).sum())
            if free is not None:
                excused += int((differs & free[block]).sum())
                differs &= ~free[block]
            if not differs.any():
                continue
            a, b = floats(mine[block][differs], entry.dtype), floats(theirs[block][differs], entry.dtype)
            far, difference = distances(a, b, entry.dtype, slack * scale)
            beyond += int((far > 1).sum())
            relative = max(relative, float(difference.max()) / scale)
            if far.max() > steps or not where:
                steps, where = max(steps, float(far.max())), name
    return Agreement(elements, equal / elements, excused / elements, steps, relative, beyond / elements, where)


def distances(a: Array, b: Array, dtype: str, slack: float) -> tuple[Array, Array]:
    """Each pair's difference beyond `slack` in units in the last place; and the plain differences."""
    difference = np.abs(a - b)
    difference[np.isnan(difference)] = np.inf
    exponent = np.frexp(np.maximum(np.abs(a), np.abs(b)))[1]
    unit = np.ldexp(1.0, exponent - MANTISSA_BITS[dtype])
    return np.maximum(difference - slack, 0) / unit, difference


def values_of(entry: TensorEntry) -> Array:
    """A tensor's elements, mapped from its file, in the dtype that holds their bits."""
    return np.memmap(entry.path, NUMPY_DTYPES[entry.dtype], "r", entry.start, (entry.elements,))


def bits(values: Array) -> Array:
    """Elements as whole numbers that differ wherever their bits do."""
    return values.view(np.dtype(f"u{values.itemsize}"))


def floats(values: Array, dtype: str) -> Array:
    """Elements as float64."""
    if dtype == "BF16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    return values.astype(np.float64)


def largest(values: Array, dtype: str) -> float:
    """The largest magnitude."""
    if dtype == "BF16":  # without the sign bit, bits and magnitudes have one order
        top: Any = np.asarray([(values & np.uint16(0x7FFF)).max()], dtype=np.uint16)
        return float(floats(top, dtype)[0])
    return float(np.abs(values).max())
