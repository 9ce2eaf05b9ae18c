"""Paired comparisons and intervals against cases worked out by hand, scipy, and what they promise in repeated draws."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evaluators.statistics import holm, mcnemar, mean_interval, paired, paired_mean, resample, resampled_means, sign_flip, student_t
from foundation.errors import InputError

EXACT = 1e-12  # a few float64 roundings


def test_by_hand() -> None:
    """8 samples: 4 won, 1 lost. McNemar's p = 2 (C(5,0) + C(5,1)) / 2^5 = 0.375; s² of the differences = 3.875 / 7."""
    found = paired([0, 0, 0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 0, 1, 1, 0])
    assert (found.samples, found.won, found.lost) == (8, 4, 1)
    assert (found.before, found.after) == (3 / 8, 6 / 8)
    assert found.difference == 3 / 8
    assert found.p == pytest.approx(0.375, abs=EXACT)
    assert found.stderr == pytest.approx(math.sqrt(3.875 / 7 / 8), abs=EXACT)
    assert found.low in {count / 8 for count in range(-8, 9)}  # percentiles of means of eight −1, 0, 1
    assert found.low < found.difference < found.high


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (5, 0), (0, 6), (4, 1), (7, 7), (30, 12), (400, 380), (5000, 5300)])
def test_mcnemar_is_the_binomial_test(won: int, lost: int) -> None:
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert mcnemar(won, lost) == pytest.approx(expected, rel=1e-9)  # both sum binomial tails in float64
    assert mcnemar(won, lost) == mcnemar(lost, won)


def test_sign_flips_by_hand() -> None:
    """Of the 8 patterns of ±1 ±2 ±4, two have a sum of at least 7 in absolute value, four of at least 5; zeros have no sign."""
    assert sign_flip([1, 2, 4]) == pytest.approx(2 / 8, abs=EXACT)
    assert sign_flip([-1, 2, 4, 0, 0]) == pytest.approx(4 / 8, abs=EXACT)
    assert sign_flip([0.0, 0.0]) == sign_flip([0.1, -0.1]) == 1.0
    assert sign_flip([0.3 - 0.1, -0.2]) == 1.0  # a sum that is zero but for rounding is reached by every pattern


@pytest.mark.parametrize("distinct", [True, False])
def test_drawn_sign_flips_are_near_the_exact_ones(distinct: bool) -> None:
    """Drawn by counts of equal values and sample by sample; scipy draws as well, so both are within 5 standard deviations of p."""
    generator = np.random.default_rng(3)
    values = generator.normal(0.1, 1, 200) if distinct else generator.choice([-1, -0.5, 0, 0.5, 1.0], 200, p=[0.1, 0.2, 0.3, 0.3, 0.1])
    expected = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=4).pvalue
    assert 0.01 < expected < 0.9
    assert sign_flip(values, 20_000, seed=1) == pytest.approx(expected, abs=5 * math.sqrt(2 * expected * (1 - expected) / 20_000))


def test_p_of_drawn_sign_flips_is_never_zero() -> None:
    assert sign_flip([1.0] * 100, 999) == 1 / 1000


@pytest.mark.parametrize("graded", [False, True])
def test_interval_is_the_percentile_bootstrap(graded: bool) -> None:
    """Against scipy's; each end is drawn 10,000 times, so ends agree to a tenth of the standard error (7 deviations of a drawn 2.5 %)."""
    generator = np.random.default_rng(5)
    before, after = generator.random((2, 150)) if graded else generator.integers(0, 2, (2, 150)).astype(float)
    found = paired(before, after)
    expected = stats.bootstrap((after - before,), np.mean, method="percentile", n_resamples=10_000, rng=6).confidence_interval
    assert found.low == pytest.approx(expected.low, abs=0.1 * found.stderr)
    assert found.high == pytest.approx(expected.high, abs=0.1 * found.stderr)


def test_counts_and_samples_are_drawn_by_the_same_law() -> None:
    """The mean and the spread of the two ways to resample agree: 40,000 means each, 5 standard errors of the mean and of the spread."""
    few = np.array([-1.0] * 10 + [0.0] * 60 + [1.0] * 30)
    many = few + np.linspace(-1e-9, 1e-9, 100)  # one hundred distinct values, the same numbers but for a billionth
    by_count, by_sample = (resampled_means(values, 40_000, np.random.default_rng(7)) for values in (few, many))
    deviation = few.std() / 10
    assert by_count.mean() - by_sample.mean() == pytest.approx(0, abs=5 * deviation * math.sqrt(2 / 40_000))
    assert by_count.std() / by_sample.std() == pytest.approx(1, abs=5 / math.sqrt(40_000))
    assert by_count.std() == pytest.approx(deviation, rel=5 / math.sqrt(80_000))


@pytest.mark.parametrize("graded", [False, True])
def test_coverage(graded: bool) -> None:
    """Of 400 experiments whose true difference is known, the 95 % interval holds it in 91 to 98.5 %: 3.5 deviations of 400 draws."""
    generator, held = np.random.default_rng(8), 0
    for _ in range(400):
        if graded:
            before, after = generator.beta(2, 2, 100), generator.beta(3, 2, 100)
            truth = 3 / 5 - 1 / 2
        else:
            kind = generator.choice(4, 120, p=[0.5, 0.2, 0.1, 0.2])  # both right, won, lost, both wrong
            before, after, truth = np.isin(kind, [0, 2]).astype(float), np.isin(kind, [0, 1]).astype(float), 0.1
        found = paired(before, after, resamples=1000)
        held += found.low <= truth <= found.high
    assert 0.91 < held / 400 < 0.985


def test_p_is_uniform_where_nothing_differs() -> None:
    """Graded scores of one law: p below 0.2 in a fifth of 400 draws, within 4 deviations of a binomial."""
    generator = np.random.default_rng(9)
    small = sum(sign_flip(generator.normal(0, 1, 30), 500, seed) < 0.2 for seed in range(400))
    assert small / 400 == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / 400))


def test_mean_over_tasks_by_hand() -> None:
    """Two tasks of unequal size count the same: (1/2 + 1/4) / 2; standard errors add up as √(Σ w² se²)."""
    first, second = resample([0, 1], [1, 1], seed=(0, 0)), resample([0, 0, 0, 1], [1, 0, 0, 1], seed=(0, 1))
    found = paired_mean([first, second])
    assert (found.samples, found.won, found.lost) == (6, 2, 0)
    assert found.difference == pytest.approx(0.375, abs=EXACT)
    assert (found.before, found.after) == pytest.approx(((1 / 2 + 1 / 4) / 2, (1 + 1 / 2) / 2), abs=EXACT)
    assert found.stderr == pytest.approx(math.sqrt(0.25 * 0.5 / 2 + 0.25 * 0.25 / 4), abs=EXACT)
    assert found.p == pytest.approx(0.5, abs=EXACT)  # ±1/4 ±1/8: of four patterns, two are as far from zero
    assert paired_mean([first, second], [0.0, 1.0]).difference == pytest.approx(0.25, abs=EXACT)


def test_p_of_a_mean_over_tasks_weighs_as_the_mean_does() -> None:
    """Differences 1/2 and 1/8, 1/8, −1/8: of 16 patterns of signs, 8 are as far from zero as 5/8 (unweighed it would be 10)."""
    found = paired_mean([resample([0], [1]), resample([0, 0, 1, 0], [1, 1, 0, 0], seed=(0, 1))])
    assert found.p == pytest.approx(0.5, abs=EXACT)


def test_interval_of_a_mean_over_tasks_has_its_width() -> None:
    """Independent tasks: the interval is that of a normal law with the stratified standard error, to 5 %."""
    generator = np.random.default_rng(10)
    parts = [resample(*generator.random((2, size)), seed=(0, place)) for place, size in enumerate((200, 400, 800))]
    found = paired_mean(parts)
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.stderr, rel=0.05)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 0.3, 1.0])), min_size=1, max_size=40))
def test_swapping_the_models_turns_the_sign(scores: list[tuple[float, float]]) -> None:
    before, after = [list(side) for side in zip(*scores, strict=True)]
    one, other = paired(before, after, 200), paired(after, before, 200)
    assert one.difference == pytest.approx(-other.difference, abs=EXACT)
    assert (one.won, one.lost, one.samples) == (other.lost, other.won, len(scores))
    assert one.stderr == pytest.approx(other.stderr, abs=EXACT)
    assert 0 < one.p <= 1
    assert one.low <= one.high
    assert one == paired(before, after, 200)
    assert min(b - a for a, b in zip(before, after, strict=True)) - EXACT <= one.low


def test_equal_answers() -> None:
    found = paired([1, 0, 0.5], [1, 0, 0.5])
    assert (found.difference, found.low, found.high, found.p, found.stderr) == (0, 0, 0, 1, 0)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [([], [], "0 scores before"), ([1], [1, 0], "1 scores before and 2 after"), ([1.0], [float("nan")], "not a finite number")],
)
def test_refuses(before, after, message) -> None:
    with pytest.raises(InputError, match=message):
        paired(before, after)
    with pytest.raises(InputError, match="no scores to compare"):
        paired_mean([])


def test_holm_by_hand() -> None:
    """0.01 · 4, then 0.02 · 3, then max(0.03 · 2, 0.06), then 0.5."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06], abs=EXACT)
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8], abs=EXACT)
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_is_between_none_and_bonferroni(ps: list[float]) -> None:
    adjusted = holm(ps)
    for p, own in zip(ps, adjusted, strict=True):
        assert p <= own <= min(1, len(ps) * p) + EXACT
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    assert [adjusted[place] for place in order] == sorted(adjusted)


def test_mean_interval_by_hand() -> None:
    """Three values: s/√3 = 1/√3, t(2) at 97.5 % = 4.3027 (tables)."""
    found = mean_interval([1.0, 2.0, 3.0])
    assert (found.mean, found.count) == (2.0, 3)
    assert found.stderr == pytest.approx(1 / math.sqrt(3), abs=EXACT)
    assert found.high - found.mean == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert found.mean - found.low == pytest.approx(found.high - found.mean, abs=EXACT)
    assert student_t(9) == pytest.approx(2.2622, abs=1e-4)


def test_mean_interval_is_scipys() -> None:
    values = np.random.default_rng(11).random(5)
    low, high = stats.t.interval(0.9, 4, values.mean(), stats.sem(values))
    found = mean_interval(values.tolist(), confidence=0.9)
    assert (found.low, found.high) == pytest.approx((low, high), abs=EXACT)


def test_one_value_has_no_interval() -> None:
    found = mean_interval([0.5])
    assert (found.mean, found.low, found.high, found.stderr, found.count) == (0.5, None, None, None, 1)
    with pytest.raises(InputError, match="no values"):
        mean_interval([])


def test_mean_interval_covers() -> None:
    """Of 1,000 experiments with 3 seeds from a normal law, the 95 % interval holds the mean in 93 to 97 %: 3 deviations."""
    drawn = np.random.default_rng(12).normal(0.7, 0.02, (1000, 3))
    found = [mean_interval(values) for values in drawn.tolist()]
    held = sum(each.low <= 0.7 <= each.high for each in found if each.low is not None and each.high is not None)
    assert 0.93 < held / 1000 < 0.97


def test_light_to_import() -> None:
    heavy = "{'torch', 'transformers', 'matplotlib', 'pyarrow', 'pandas', 'scipy'}"
    code = f"import sys, evaluators.statistics; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
