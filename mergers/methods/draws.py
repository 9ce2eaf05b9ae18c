"""Random 16-bit draws addressed by place: (seed, source, tensor, first element of the block). The same place gives the same draws, whoever
asks, in whatever order, however many workers there are; the grid of blocks is part of the address and so of the algorithm.

The draws are the raw output of numpy's SFC64 generator, four to a 64-bit word. Numpy keeps the streams of its bit generators as they are
(NEP 19), which it does not promise for distributions; a test holds the first draws. Making them lets go of the GIL.

A probability p is taken to the nearest multiple of 2^-16, its `level`: a draw below the level happens with exactly level / 65536.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from mergers.merger import Inputs

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mergers.merger import Array

LEVELS = 1 << 16
DRAWS_PER_WORD = 4


def level_of(probability: float) -> int:
    """The probability in multiples of 2^-16, to the nearest."""
    return round(probability * LEVELS)


def draws(seed: int, source: str, tensor: str, start: int, count: int) -> Array:
    """`count` draws, uint16, for the block of `tensor` that begins at element `start`, in `source`."""
    address = "\0".join((str(seed), source, tensor, str(start)))
    generator = np.random.SFC64(int.from_bytes(sha256(address.encode()).digest(), "little"))
    words = np.asarray(generator.random_raw(-(-count // DRAWS_PER_WORD)))
    return words.astype("<u8", copy=False).view("<u2")[:count]


def block_draws(seed: int, inputs: Inputs, index: int) -> Array:
    """The draws for the block of `inputs` in its tensor number `index`: uint16, flat."""
    return draws(seed, inputs.sources[index], inputs.name, inputs.start, inputs.tensors[index].numel())


def keep_mask(below: Array, level: int, dtype: torch.dtype) -> Tensor:
    """1 where a draw is below `level`, else 0, in `dtype`; flat. To be multiplied with, so that NaN stays NaN."""
    import torch

    return torch.from_numpy((below < level).view(np.uint8)).to(dtype)
