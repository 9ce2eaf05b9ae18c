"""Order statistics by counting against sorting: exact for every dtype, for ties, zeros, infinities, and however the values are cut."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergers.engine.rounds import Tally
from mergers.methods.threshold import ROUNDS, count, drop_above, drop_below, find, keep_band, keep_largest, needs, watches

FLOATS = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def order_statistics(sources, ranks, cut):
    """The magnitudes of the ranks, found in counting rounds over blocks of `cut` elements."""
    known = None
    for number in range(ROUNDS):
        tally = Tally()
        for block, start in enumerate(range(0, len(sources[0]), cut)):
            if needs(number, known) and watches(number, block):
                tally.add(count(number, [source[start : start + cut].clone() for source in sources], known))
        known = find(number, tally.total(), known, ranks) if needs(number, known) else known
    return known


def values_of(count, dtype, seed, grid):
    """Random values: many equal ones on a grid, or over many magnitudes."""
    generator = torch.Generator().manual_seed(seed)
    if grid:
        return (torch.randint(-4, 5, (count,), generator=generator) / 8).to(dtype)
    return (torch.randn(count, generator=generator) * 10.0 ** torch.randint(-7, 4, (count,), generator=generator)).to(dtype)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(FLOATS), grid=st.booleans(), count=st.integers(1, 300), seed=st.integers(0, 1 << 20))
def test_ranks_are_those_of_a_sort(data, dtype, grid, count, seed):
    sources = [values_of(count, dtype, seed + index, grid) for index in range(data.draw(st.integers(1, 3)))]
    ranks = tuple(data.draw(st.lists(st.integers(1, count), min_size=1, max_size=3)))
    found = order_statistics(sources, lambda n: ranks, data.draw(st.integers(1, 320)))
    assert found.dtype == np.float32
    for source, row in zip(sources, found, strict=True):
        largest_first = np.sort(source.float().abs().numpy())[::-1]
        assert row.tolist() == [largest_first[rank - 1] for rank in ranks]


@pytest.mark.parametrize("value", [0.0, 1e-45, 1.1754944e-38, 1.0, 3.4028235e38, math.inf])
def test_every_kind_of_float_is_ranked(value):
    others = torch.tensor([-0.0, 2e-45, -1e-40, 0.5, -7.0, 3e38])
    values = torch.cat([others, torch.tensor([-value])])
    ordered = values.abs().sort(descending=True).values.tolist()
    found = order_statistics([values], lambda n: tuple(range(1, n + 1)), cut=3)
    assert found[0].tolist() == ordered


def test_a_sample_that_is_not_typical_costs_rounds_and_changes_nothing():
    values = torch.cat([torch.full((100,), 5.0), torch.linspace(0, 1, 900)])
    ordered = values.abs().sort(descending=True).values
    assert order_statistics([values], keep_largest(0.5), cut=100)[0, 0] == ordered[499], "the first block of ten is the sample"


def test_nan_ranks_above_infinity():
    found = order_statistics([torch.tensor([1.0, math.nan, math.inf])], lambda n: (1, 2, 3), cut=2)[0]
    assert math.isnan(found[0])
    assert found[1:].tolist() == [math.inf, 1.0]


@pytest.mark.parametrize(
    ("density", "n", "kept"), [(0.2, 10, 2), (0.2, 9, 1), (0.2, 1, 1), (0.01, 50, 1), (0.5, 7, 3), (1.0, 7, 7), (0.999, 1000, 999)]
)
def test_how_many_are_kept_is_rounded_down_but_never_to_none(density, n, kept):
    assert keep_largest(density)(n) == (kept,)


@pytest.mark.parametrize(
    ("density", "outliers", "n", "ranks"),
    [(0.9, 0.01, 1000, (11, 910)), (0.9, 0.01, 99, (1, 89)), (0.5, 0.5, 8, (5, 8)), (0.5, 0.5, 7, (4, 6)), (0.9, 0.1, 1, (1, 1))],
)
def test_a_band_lies_below_the_outliers(density, outliers, n, ranks):
    assert keep_band(density, outliers)(n) == ranks


@pytest.mark.parametrize("dtype", FLOATS[2:])
def test_dropping_keeps_what_equals_the_bounds_and_nan(dtype):
    values = torch.tensor([1.0, -2.0, 3.0, -0.5, math.nan], dtype=dtype)
    assert drop_below(values.clone(), 2.0).tolist()[:4] == [0, -2, 3, 0]
    assert drop_above(values.clone(), 2.0).tolist()[:4] == [1, -2, 0, -0.5]
    assert drop_below(values.clone(), 0.0).tolist()[:4] == values.tolist()[:4]
    assert all(math.isnan(drop(values.clone(), 2.0)[4]) for drop in (drop_below, drop_above))


def test_rows_of_sources_that_came_later_are_added_at_their_place():
    tally = Tally()
    for counts in ([[1, 2]], [[1, 1], [5, 5], [0, 1]], [[0, 3], [1, 0]]):
        tally.add(np.array(counts, dtype=np.int64))
    assert tally.total().tolist() == [[2, 6], [6, 5], [0, 1]]
