"""Compiled code made ready by importing this: the first call in a process takes a quarter of a second, which those forked from it are spared."""

import numpy as np

from mergers.engine.arrays import QUICK, is_finite

for dtype in QUICK:
    is_finite(np.zeros(1, dtype))
