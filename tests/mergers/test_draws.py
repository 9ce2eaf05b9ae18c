"""Random draws: the same for the same place for ever, different for any other, and as likely as they say."""

import itertools

import numpy as np
import pytest
import torch

from mergers.methods.draws import LEVELS, draws, keep_mask, level_of


def test_the_draws_of_a_place_never_change():
    """If this fails, merges made before are no longer made again: the address, the hash or numpy's SFC64 stream has changed."""
    assert draws(0, "a", "model.norm", 0, 6).tolist() == PINNED
    assert draws(0, "a", "model.norm", 0, 3).tolist() == PINNED[:3]


PINNED = [16055, 55396, 7949, 55233, 6512, 21326]


def test_any_other_place_has_other_draws():
    places = list(itertools.product((0, 1), ("a", "b"), ("w", "w1"), (0, 262144)))
    found = {draws(*place, 64).tobytes() for place in places}
    assert len(found) == len(places)
    assert draws(1, "2", "w", 0, 64).tobytes() != draws(12, "", "w", 0, 64).tobytes()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 1000])
def test_any_number_can_be_drawn(count):
    drawn = draws(7, "a", "w", 0, count)
    assert drawn.dtype == np.uint16
    assert drawn.tolist() == draws(7, "a", "w", 0, 1000).tolist()[:count]


@pytest.mark.parametrize("probability", [0.001, 0.1, 0.5, 0.9])
def test_a_draw_falls_below_the_level_as_often_as_said(probability):
    count = 1 << 20
    level = level_of(probability)
    kept = float(keep_mask(draws(3, "a", "w", 0, count), level, torch.float64).sum())
    expected = count * level / LEVELS
    assert abs(kept - expected) < 5 * (expected * (1 - level / LEVELS)) ** 0.5  # five standard deviations: one chance in a million


def test_sources_are_drawn_independently():
    first, second = (keep_mask(draws(0, source, "w", 0, 1 << 20), LEVELS // 2, torch.float64) for source in "ab")
    both = float((first * second).mean())
    assert abs(both - 0.25) < 5 * (0.25 * 0.75 / (1 << 20)) ** 0.5  # as above
