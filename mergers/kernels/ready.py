"""Compiled code made ready by importing this: what the first call in a process takes a quarter of a second for, those forked from it are
spared.

numba looks for libraries that its own code could call, and loads them. Nothing here calls them, and they take longer than all else, so
they are out of its sight for that moment.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from mergers.engine.arrays import QUICK, is_finite

UNUSED = ("scipy.linalg", "cffi")


@contextmanager
def unseen(names: tuple[str, ...]) -> Iterator[None]:
    """Have imports of these modules fail, where they are not loaded yet."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # what is None there cannot be imported
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with unseen(UNUSED):
    for dtype in QUICK:
        is_finite(np.zeros(1, dtype))
