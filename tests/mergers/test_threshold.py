"""Order statistics by counting against sorting: exact for every dtype, for ties, zeros, infinities, and however the values are cut."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergers.engine.rounds import Tally
from mergers.methods.threshold import (
    BRACKET,
    LOWER,
    LOWER_BINS,
    ROUNDS,
    SAMPLE_LOWER,
    SAMPLE_UPPER,
    UPPER,
    count,
    drop_above,
    drop_below,
    find,
    keep_band,
    keep_largest,
    needs,
    watches,
)

FLOATS = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def order_statistics(sources, ranks, cut, looked=None):
    """The magnitudes of the ranks, found in counting rounds over blocks of `cut` elements; `looked` gets (round, block) of every look."""
    known = None
    for number in range(ROUNDS):
        tally = Tally()
        for block, start in enumerate(range(0, max(map(len, sources)), cut)):
            if needs(number, known) and watches(number, block):
                tally.add(count(number, [source[start : start + cut].clone() for source in sources], known))
                if looked is not None:
                    looked.append((number, block))
        known = find(number, tally.total(), known, ranks) if needs(number, known) else known
    return known


def with_bits(*patterns):
    """The float32 values that have these bits, each second one negative."""
    values = torch.tensor(patterns, dtype=torch.int32).view(torch.float32)
    return torch.where(torch.arange(len(patterns)) % 2 == 1, -values, values)


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


def test_a_typical_sample_is_one_block_in_eight_and_leaves_one_look_at_all():
    """If this fails, merges have become slower, not wrong."""
    generator = torch.Generator().manual_seed(0)
    sources = [torch.randn(2000, generator=generator).abs() * 2.0**-9 + 1.0 for _ in range(2)]  # half a bracket lies on either side of most
    looked: list[tuple[int, int]] = []
    found = order_statistics(sources, [lambda n: (n // 4, n // 2), lambda n: (n // 3, n)], 100, looked)
    assert looked == [
        (SAMPLE_UPPER, 0),
        (SAMPLE_UPPER, 8),
        (SAMPLE_UPPER, 16),
        (SAMPLE_LOWER, 0),
        (SAMPLE_LOWER, 8),
        (SAMPLE_LOWER, 16),
    ] + [(BRACKET, block) for block in range(20)]
    ordered = [source.sort(descending=True).values for source in sources]
    assert found.tolist() == [[float(ordered[0][499]), float(ordered[0][999])], [float(ordered[1][665]), float(ordered[1][1999])]]


def test_all_is_looked_at_twice_more_if_the_sample_was_not_typical():
    values = torch.cat([torch.full((100,), 5.0), torch.linspace(0, 1, 900)])
    looked: list[tuple[int, int]] = []
    order_statistics([values], keep_largest(0.5), 100, looked)
    assert looked == [(number, block) for number in (SAMPLE_UPPER, SAMPLE_LOWER) for block in (0, 8)] + [
        (number, block) for number in (BRACKET, UPPER, LOWER) for block in range(10)
    ]


@pytest.mark.parametrize("pattern", [0, 5, LOWER_BINS // 2, LOWER_BINS // 2 + 1, 0x3F8000FF, 0x3F80FFFF, 0x7F800000])
def test_a_bracket_reaches_as_far_to_either_side_of_the_guess(pattern):
    known = None
    for number in (SAMPLE_UPPER, SAMPLE_LOWER):
        known = find(number, count(number, [with_bits(pattern)], known), known, keep_largest(1.0))
    assert known.tolist() == [[[max(0, pattern - LOWER_BINS // 2)]]]


START = 0x3F812345
ENDS = (START - 9, START - 1, START, START + 1, START + LOWER_BINS - 1, START + LOWER_BINS, START + LOWER_BINS + 9)


def test_what_lies_outside_a_bracket_is_counted_as_above_or_below():
    starts = np.array([[[START], [0]]])
    table = count(BRACKET, [with_bits(*ENDS, ENDS[2])], starts)
    assert table.shape == (1, 2, LOWER_BINS + 2)
    assert {place: int(table[0, 0, place]) for place in table[0, 0].nonzero()[0]} == {
        0: 2,
        1: 1,
        LOWER_BINS - 1: 1,
        LOWER_BINS: 2,
        LOWER_BINS + 1: 2,
    }
    assert {place: int(table[0, 1, place]) for place in table[0, 1].nonzero()[0]} == {LOWER_BINS: 8}


@pytest.mark.parametrize("rank", range(1, 8))
def test_a_rank_counts_as_found_exactly_if_it_lies_in_its_bracket(rank):
    starts = np.array([[[START]], [[START]]])
    counts = count(BRACKET, [with_bits(ENDS[3]), with_bits(*ENDS)], starts)
    known = find(BRACKET, counts, starts, [lambda n: (n,), lambda n: (rank,)])
    if 3 <= rank <= 5:
        assert known.dtype == np.float32
        assert known.view(np.int32).tolist() == [[ENDS[3]], [ENDS[7 - rank]]]
    else:
        assert known is starts


def test_each_row_has_ranks_of_its_own_and_an_empty_one_magnitude_0():
    sources = [torch.linspace(0.5, 1, 80), torch.zeros(0), torch.linspace(-3, -2, 80)]
    ranks = [lambda n: (1, 2), lambda n: (1, 1), lambda n: (n - 1, n)]
    for cut in (7, 100):
        looked: list[tuple[int, int]] = []
        found = order_statistics(sources, ranks, cut, looked)
        assert found.tolist() == [[1.0, float(sources[0][-2])], [0.0, 0.0], [-float(sources[2][-2]), 2.0]]
        assert cut < 80 or looked == [(SAMPLE_UPPER, 0), (SAMPLE_LOWER, 0), (BRACKET, 0)], "an empty row needs no further rounds"


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
    [
        (0.9, 0.01, 1000, (11, 910)),
        (0.9, 0.01, 99, (1, 89)),
        (0.5, 0.5, 8, (5, 8)),
        (0.5, 0.5, 7, (4, 6)),
        (0.9, 0.1, 1, (1, 1)),
        (1e-10, 1.0, 8, (8, 8)),
        (0.9, 0.1, 0, (1, 1)),
    ],
)
def test_a_band_lies_below_the_outliers(density, outliers, n, ranks):
    assert keep_band(density, outliers)(n) == ranks


@pytest.mark.parametrize("dtype", FLOATS[2:])
def test_dropping_keeps_what_equals_the_bounds_and_nan(dtype):
    values = torch.tensor([1.0, -2.0, 3.0, -0.5, math.nan], dtype=dtype)
    assert drop_below(values.clone(), 2.0).tolist()[:4] == [0, -2, 3, 0]
    assert drop_above(values.clone(), 2.0).tolist()[:4] == [1, -2, 0, -0.5]
    assert drop_below(values.clone(), 0.0).tolist()[:4] == values.tolist()[:4]
    assert drop_below(torch.tensor([-0.0], dtype=dtype), 0.0).signbit().all(), "where nothing is dropped every bit stays"
    assert all(math.isnan(drop(values.clone(), 2.0)[4]) for drop in (drop_below, drop_above))


def test_rows_of_sources_that_came_later_are_added_at_their_place():
    tally = Tally()
    for counts in ([[1, 2]], [[1, 1], [5, 5], [0, 1]], [[0, 3], [1, 0]]):
        tally.add(np.array(counts, dtype=np.int64))
    assert tally.total().tolist() == [[2, 6], [6, 5], [0, 1]]
