"""The measures of continual learning on one small matrix, worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators import continual
from evaluators.continual import ScoreMatrix
from foundation.errors import InputError

# columns: held-out h1 h2 | stream a b c
SCORES = [
    [0.9, 0.8, 0.2, 0.3, 0.1],
    [0.8, 0.8, 0.9, 0.4, 0.1],
    [0.7, 0.6, 0.5, 0.8, 0.2],
    [0.6, 0.7, 0.6, 0.5, 0.7],
]
EXACT = 1e-12  # a few float64 roundings of sums of numbers below one


def matrix() -> ScoreMatrix:
    return ScoreMatrix(("a", "b", "c"), ("h1", "h2"), np.array(SCORES))


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (continual.average_accuracy, (0.6 + 0.5 + 0.7) / 3),
        (continual.incremental_accuracy, (0.9 + (0.5 + 0.8) / 2 + (0.6 + 0.5 + 0.7) / 3) / 3),
        (continual.learning_accuracy, (0.9 + 0.8 + 0.7) / 3),
        (continual.learning_gain, (0.7 + 0.5 + 0.6) / 3),
        (continual.final_gain, (0.4 + 0.2 + 0.6) / 3),
        (continual.backward_transfer, (-0.3 + -0.3) / 2),
        (continual.forgetting, ((0.9 - 0.6) + (0.8 - 0.5)) / 2),
        (continual.held_out_forgetting, (0.3 + 0.1) / 2),
        (continual.forward_transfer, ((0.4 - 0.3) + (0.2 - 0.1)) / 2),
    ],
)
def test_by_hand(measure, expected) -> None:
    assert measure(matrix()) == pytest.approx(expected, abs=EXACT)


def test_held_out_drift_by_hand() -> None:
    np.testing.assert_allclose(continual.held_out_drift(matrix()), [0, -0.05, -0.2, -0.2], atol=EXACT)


def test_after_two_stages_only_the_tasks_trained_so_far_count() -> None:
    part = matrix().until(2)
    assert continual.average_accuracy(part) == pytest.approx((0.5 + 0.8) / 2, abs=EXACT)
    assert continual.forgetting(part) == pytest.approx(0.4, abs=EXACT)
    assert continual.backward_transfer(part) == pytest.approx(-0.4, abs=EXACT)
    assert continual.forward_transfer(part) == pytest.approx(0.1, abs=EXACT)
    assert continual.final_gain(part) == pytest.approx((0.3 + 0.5) / 2, abs=EXACT)


def test_forgetting_takes_the_best_since_the_own_stage() -> None:
    """Task a rises to .95 in stage 2; its .99 of the base does not count."""
    scores = np.array([[0.99, 0.0, 0.0], [0.7, 0.0, 0.0], [0.95, 0.5, 0.0], [0.6, 0.4, 0.9]])
    run = ScoreMatrix(("a", "b", "c"), (), scores)
    assert continual.forgetting(run) == pytest.approx(((0.95 - 0.6) + (0.5 - 0.4)) / 2, abs=EXACT)
    assert continual.backward_transfer(run) == pytest.approx(((0.6 - 0.7) + (0.4 - 0.5)) / 2, abs=EXACT)


JOINT = [
    [0.9, 0.8, 0.2, 0.3, 0.1],
    [0.9, 0.8, 0.95, 0.4, 0.1],
    [0.9, 0.7, 0.9, 0.75, 0.2],
    [0.9, 0.8, 0.85, 0.8, 0.9],
]


def test_intransigence_by_hand() -> None:
    """Against the joint model of tasks 1 to j, on task j: .95 − .9, .75 − .8 (here the stream is ahead), .9 − .7."""
    bounds = continual.joint_bounds(ScoreMatrix(("a", "b", "c"), ("h1", "h2"), np.array(JOINT)))
    assert bounds == {"a": 0.95, "b": 0.75, "c": 0.9}
    assert continual.intransigence(matrix(), bounds) == pytest.approx((0.05 - 0.05 + 0.2) / 3, abs=EXACT)
    assert continual.intransigence(matrix().until(1), bounds) == pytest.approx(0.05, abs=EXACT)
    assert np.isnan(continual.intransigence(matrix().until(0), bounds))


def test_intransigence_needs_every_task() -> None:
    with pytest.raises(InputError, match="the joint scores lack b, c"):
        continual.intransigence(matrix(), {"a": 0.9})


def test_what_is_not_defined_is_nan() -> None:
    one = matrix().until(1)
    for measure in (continual.forgetting, continual.backward_transfer, continual.forward_transfer):
        assert np.isnan(measure(one))
    for measure in (continual.average_accuracy, continual.learning_gain, continual.incremental_accuracy):
        assert np.isnan(measure(matrix().until(0)))
    assert np.isnan(continual.held_out_forgetting(ScoreMatrix(("a",), (), np.zeros((2, 1)))))
    assert continual.held_out_forgetting(matrix().until(0)) == 0


@pytest.mark.parametrize(
    ("stream", "held_out", "scores", "message"),
    [
        ((), ("h",), [[0.1]], "at least one stream task"),
        (("a",), ("a",), [[0.1, 0.2]], "each task once"),
        (("a",), ("h",), [[0.1]], "do not fit"),
        (("a",), (), [[0.1], [0.2], [0.3]], "1 to 2 rows"),
        (("a",), ("h",), [[0.1, 0.2], [0.3, float("nan")]], "'a' after stage 1 is nan"),
    ],
)
def test_refuses_what_is_no_score_matrix(stream, held_out, scores, message) -> None:
    with pytest.raises(InputError, match=message):
        ScoreMatrix(stream, held_out, np.array(scores))


@given(st.integers(2, 5), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_identities(stages: int, held_out: int, seed: int) -> None:
    """ACC = LA + BWT (S−1)/S, forgetting ≥ −BWT, and a model that never changes learns and forgets nothing."""
    scores = np.random.default_rng(seed).random((stages + 1, held_out + stages))
    stream, others = tuple(f"s{i}" for i in range(stages)), tuple(f"h{i}" for i in range(held_out))
    run = ScoreMatrix(stream, others, scores)
    rebuilt = continual.learning_accuracy(run) + continual.backward_transfer(run) * (stages - 1) / stages
    assert continual.average_accuracy(run) == pytest.approx(rebuilt, abs=EXACT)
    assert continual.intransigence(run, continual.joint_bounds(run)) == 0
    assert continual.intransigence(run, dict.fromkeys(stream, 1.0)) == pytest.approx(1 - continual.learning_accuracy(run), abs=EXACT)
    assert continual.forgetting(run) >= -continual.backward_transfer(run) - EXACT
    still = ScoreMatrix(stream, others, np.repeat(scores[:1], stages + 1, axis=0))
    for measure in (
        continual.learning_gain,
        continual.final_gain,
        continual.forgetting,
        continual.backward_transfer,
        continual.forward_transfer,
    ):
        assert measure(still) == pytest.approx(0, abs=EXACT)
