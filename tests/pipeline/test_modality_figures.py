"""The figures of a modality-merging experiment are checked against ones worked out by hand, rank correlations against scipy."""

import math
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from modality_outcomes import EXACT, SET, cells, experiment, outcome
from scipy import stats

from pipeline.report.modality import Outcome, Setting, When, difference, settings_of, spread, tuned_words, unmerged_of
from pipeline.report.modality_correlation import Target, correlations, followed, metrics_of, ranks, spearman
from pipeline.report.modality_scatter import drawn
from pipeline.report.modality_tables import correlation_grid, grids_of


def named(outcomes: list[Outcome]) -> dict[str, Setting]:
    return {setting.arm: setting for setting in settings_of(outcomes)}


def test_figures_are_means_over_seeds() -> None:
    settings = settings_of(experiment())
    assert [setting.arm for setting in settings][:3] == ["unmerged", "seed only", "interpolation 0.25"]
    half = settings[3].figure(SET, When.MERGED)
    assert half is not None
    assert (half.mean, half.stderr, half.count) == pytest.approx((0.62, 0.02 / math.sqrt(3), 3), abs=EXACT)
    assert settings[3].figure(f"{SET}/TR@1", When.TUNED).mean == pytest.approx(0.54, abs=EXACT)  # type: ignore[union-attr]
    assert settings[-1].figure(SET, When.TUNED) is None
    assert tuned_words(settings) == "after 60 steps of fine-tuning"


def test_one_seed_has_an_error_over_samples_alone() -> None:
    setting = settings_of(experiment((1,)))[0]
    assert setting.figure(SET, When.MERGED).stderr is None  # type: ignore[union-attr]
    assert setting.bar(SET, When.MERGED) == 0.02


def test_differences_are_taken_within_seeds() -> None:
    arms = named(experiment())
    apart = difference(arms["interpolation 0.5"], arms["regmean 1"], SET, When.MERGED)
    assert apart is not None
    # 0.04 + 0.02 * seed: its error is that of the seeds' 0, 0.02, 0.04 alone
    assert (apart.value.mean, apart.value.stderr) == pytest.approx((0.06, 0.02 / math.sqrt(3)), abs=EXACT)
    assert apart.better == 3
    same = difference(arms["unmerged"], arms["seed only"], SET, When.MERGED)
    assert same is not None
    assert (same.value.mean, same.value.stderr, same.better) == pytest.approx((-0.2, 0, 0), abs=EXACT)


def test_spread_holds_the_finished_merges() -> None:
    settings = settings_of(experiment())
    found = spread(settings, SET, When.MERGED)
    assert found is not None
    assert found.merges == 6
    assert (found.lowest, found.highest) == pytest.approx((0.57, 0.68), abs=EXACT)
    assert found.noise == pytest.approx(0, abs=EXACT)  # 10 of 15 pairs differ by the same in every seed
    assert spread(settings[:3], SET, When.MERGED) is None


def test_an_arm_on_the_way_is_held_against_the_unmerged_model_of_its_step() -> None:
    arms = named(experiment())
    settings = list(arms.values())
    assert unmerged_of(settings, arms["interpolation 0.5, step 50"]) is arms["unmerged, step 50"]
    assert unmerged_of(settings, arms["ties"]) is arms["unmerged"]
    assert followed(settings) == ["interpolation 0.5"]
    shown = cells(grids_of(settings, SET)[2])
    assert shown["interpolation 0.5, step 50"]["minus unmerged"] == "-5.0 ± 0.0 (0/3)"
    assert shown["interpolation 0.5, step 50"]["minus interpolation 0.5"] == ""
    assert shown["regmean 1"]["minus interpolation 0.5"] == "+6.0 ± 1.2 (3/3)"


@hypothesis_settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 7.0]), min_size=1, max_size=9))
def test_ranks_share_their_mean(values: list[float]) -> None:
    for value, twice in zip(values, ranks(values), strict=True):
        below, equal = sum(other < value for other in values), values.count(value)
        assert twice == 2 * below + equal + 1


def test_spearman_without_ties_is_the_formula_of_differences() -> None:
    for order in permutations(range(5)):
        expected = 1 - 6 * sum((a - b) ** 2 for a, b in enumerate(order)) / (5 * 24)
        assert spearman(range(5), order).rho == pytest.approx(expected, abs=EXACT)


@hypothesis_settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=12))
def test_spearman_with_ties_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    found = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found.rho is None
    else:
        assert found.rho == pytest.approx(stats.spearmanr(first, second).statistic, abs=EXACT)


@pytest.mark.parametrize(
    ("first", "second"), [((1.0, 2.0), (1.0, 2.0)), ((1.0, 1.0, 1.0), (1.0, 2.0, 3.0)), ((1.0, 2.0, 3.0), (5.0, 5.0, 5.0))]
)
def test_a_correlation_without_an_order_is_undefined(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    assert spearman(first, second).rho is None


def test_experts_at_several_steps() -> None:
    settings = settings_of(experiment())
    found = {(each.metric, each.target): each for each in correlations(settings, SET, "interpolation 0.5")}
    lost, score = found["l2", Target.LOST], found["l2", Target.SCORE]
    assert [each.rho for each in lost.seeds.values()] == [1.0, 1.0, 1.0]  # losses 2, 5, 10 points at l2 3, 6, 9
    assert [(each.points, each.distinct) for each in lost.seeds.values()] == [(3, 3)] * 3
    assert [each.rho for each in score.seeds.values()] == [1.0, 1.0, 1.0]  # scores 56, 59, 60: the score alone would mislead
    assert found["cosine", Target.LOST].mean.mean == -1.0  # type: ignore[union-attr]
    assert lost.pooled.points == 9


def test_a_distance_that_all_merges_of_a_seed_share_is_undefined() -> None:
    finished = [each for each in experiment() if "step" not in each.arm]
    settings = settings_of(finished)
    for each in correlations(settings, SET):
        assert [seed.rho for seed in each.seeds.values()] == [None, None, None]
        assert each.mean is None
        assert (each.pooled.points, each.pooled.distinct) == (18, 3)
    grid = correlation_grid(settings, SET)
    assert grid is not None
    assert all(row[2:6] == ("undefined",) * 4 for row in grid.rows)
    assert not drawn(settings, SET)


def test_metrics_stand_in_their_order_by_scope() -> None:
    distances = {"experts/ssd": 0.1, "merged/l2": 1.0, "odd": 2.0, "experts/l2": 3.0}
    assert metrics_of(settings_of([outcome("ties", 0, 0.5, distances=distances)])) == ["experts/l2", "experts/ssd", "merged/l2", "odd"]
