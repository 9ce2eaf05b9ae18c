"""The scans behind the digits tasks and how a canvas is drawn from them.

Each scan is doubled in size, tinted, moved by at most a pixel and laid in one of four cells of a 32x32 RGB canvas; then a little noise.
Heavy on import (numpy, and scikit-learn on first use), so `tasks/digits.py` imports it only when an example is made.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

import numpy as np
from numpy.random import PCG64, Generator
from PIL import Image

from foundation.errors import InputError
from tasks.digits_scene import COLORS, Glyph
from tasks.task import Split

CELL = 16
JITTER = 1
NOISE = 0.02
SHARES = {Split.TRAIN: 0.6, Split.VALIDATION: 0.2, Split.TEST: 0.2}
TINTS = np.array(list(COLORS.values()), dtype=np.float32) / 255


def generator(address: str) -> Generator:
    """Random numbers that belong to `address` alone."""
    return Generator(PCG64(int.from_bytes(sha256(address.encode()).digest()[:16])))


@lru_cache(maxsize=1)
def scans() -> tuple[np.ndarray, np.ndarray]:
    """All scans and their digits: [1797, 8, 8] float32 in 0..1, and [1797] int."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "the digits tasks take their scans from scikit-learn, which is not installed; pip install 'mergeline[digits]'"
        ) from error
    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32), bunch.target.astype(int)


@lru_cache(maxsize=1)
def scans_of() -> dict[tuple[Split, int], np.ndarray]:
    """Which scans (row numbers) each split holds of each digit: 60/20/20 of every digit, always the same ones."""
    _, targets = scans()
    held: dict[tuple[Split, int], np.ndarray] = {}
    for digit in range(10):
        rows = generator(f"digits/split/{digit}").permutation(np.flatnonzero(targets == digit))
        ends = np.round(np.cumsum(list(SHARES.values())) * len(rows)).astype(int)
        for split, part in zip(SHARES, np.split(rows, ends[:-1]), strict=True):
            held[split, digit] = part
    return held


def draw(glyphs: Sequence[Glyph], split: Split, rng: Generator) -> Image.Image:
    """A 32x32 RGB canvas that shows `glyphs` with scans of `split`."""
    images, _ = scans()
    canvas = np.zeros((2 * CELL + 2 * JITTER, 2 * CELL + 2 * JITTER, 3), dtype=np.float32)
    for glyph in glyphs:
        patch = images[choose_scan(glyph, split, rng)].repeat(2, axis=0).repeat(2, axis=1)[:, :, None] * TINTS[glyph.color]
        down, right = rng.integers(0, 2 * JITTER + 1, size=2)
        row, column = CELL * (glyph.cell // 2) + down, CELL * (glyph.cell % 2) + right
        place = canvas[row : row + CELL, column : column + CELL]
        np.maximum(place, patch, out=place)
    seen = canvas[JITTER:-JITTER, JITTER:-JITTER]
    noisy = seen + NOISE * rng.standard_normal(seen.shape, dtype=np.float32)
    return Image.fromarray(np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8))


def choose_scan(glyph: Glyph, split: Split, rng: Generator) -> int:
    """The row of a scan of the glyph's digit, from `split` only."""
    rows = scans_of()[split, glyph.digit]
    return int(rows[rng.integers(len(rows))])
