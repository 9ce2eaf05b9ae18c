"""Adding up reports: exact, in any order, over any boundary between processes."""

import itertools
import pickle

import numpy as np
import pytest

from mergers.engine.rounds import Tally


def tally_of(*reports):
    tally = Tally()
    for report in reports:
        tally.add(np.asarray(report))
    return tally


def test_sums_are_rounded_once_whatever_the_order():
    reports = [[1e16, 1.0], [1.0, 2.0], [-1e16, 3.0]]
    totals = {tuple(tally_of(*order).total()) for order in itertools.permutations(reports)}
    assert totals == {(1.0, 6.0)}, "a running sum loses the 1 beside 1e16 in some orders"


def test_counts_of_fewer_sources_add_to_those_of_more():
    whole = tally_of([[1, 2]])
    whole.join(tally_of([[10, 20], [30, 40]]))
    assert whole.total().tolist() == [[11, 22], [30, 40]]


@pytest.mark.parametrize("shape", [(1,), (7,), (2, 3, 5)])
def test_a_tally_travels_whole(shape):
    counts = np.random.default_rng(1).integers(0, 3, shape)
    for tally in (tally_of(counts), tally_of(np.asarray(counts, dtype=float)), Tally()):
        there = pickle.loads(pickle.dumps(tally))
        assert (there.counts is None) == (tally.counts is None)
        if tally.counts is not None or tally.sums:
            np.testing.assert_array_equal(there.total(), tally.total())
            there.add(counts if tally.counts is not None else np.asarray(counts, dtype=float))
            np.testing.assert_array_equal(there.total(), 2 * tally.total())


def test_empty_counts_travel_light():
    assert len(pickle.dumps(tally_of(np.eye(1, 1 << 16, dtype=np.int64)))) < 1000


def test_a_value_that_is_not_finite_makes_the_sum_so():
    assert np.isnan(tally_of([np.inf], [-np.inf]).total()).all()
    with pytest.raises(TypeError, match="int64 counts or float64 sums"):
        tally_of(np.float32(1))
