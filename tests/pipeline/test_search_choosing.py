"""Which points are tried, and which trial is picked: with made-up values, without a model."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.scores import TaskScore
from evaluators.suite import Suite
from foundation.errors import ConfigError, InputError
from pipeline.search.choosing import Chooser, Suggested, chooser_of, grid_points, random_points
from pipeline.search.goal import pick, shares_of, stderr_of, value_of
from pipeline.search.spec import Algorithm, Axis, Goal, Point, SearchSpec, Trial
from tasks.registry import get_task
from tasks.task import Split

ALPHA = Axis("alpha", 0.0, 1.0)
BOTH = (Axis("density", 0.1, 0.9), Axis("scale", values=(0.5, 1.0)))


def hill(point: Point) -> float:
    """Best at 0.3."""
    return -((float(point["alpha"]) - 0.3) ** 2)


def play(chooser: Chooser, trials: dict[int, Trial], stop_at: int | None = None) -> list[Point]:
    """Try points one by one from where `trials` end; the points of all."""
    for number in sorted(trials):
        chooser.tell(trials[number])
    for number in range(len(trials), chooser.total if stop_at is None else stop_at):
        point = chooser.ask(number)
        assert point is not None
        trials[number] = Trial(number, point, hill(point), samples=10, stopped=number % 4 == 3)
        chooser.tell(trials[number])
    return [trials[number].point for number in sorted(trials)]


def test_a_grid_holds_both_ends_and_the_last_axis_goes_fastest() -> None:
    assert [point["alpha"] for point in grid_points(SearchSpec("wise_ft", (ALPHA,), points=11))] == [n / 10 for n in range(11)]
    points = grid_points(SearchSpec("ties", BOTH, points=3))
    assert points[:3] == [{"density": 0.1, "scale": 0.5}, {"density": 0.1, "scale": 1.0}, {"density": 0.5, "scale": 0.5}]
    assert len(points) == 6


def test_a_grid_over_methods_leaves_out_what_a_method_lacks() -> None:
    axes = (ALPHA, Axis("method", values=("slerp", "wise_ft")), Axis("weight", values=(0.25, 0.75)))
    assert grid_points(SearchSpec("slerp", axes, points=2)) == [
        {"method": "slerp", "weight": 0.25},
        {"method": "slerp", "weight": 0.75},
        {"alpha": 0.0, "method": "wise_ft"},
        {"alpha": 1.0, "method": "wise_ft"},
    ]


@given(st.integers(0, 100), st.integers(1, 20), st.integers(0, 20))
def test_random_points_are_a_prefix_of_more(seed: int, few: int, more: int) -> None:
    def points(count: int) -> list[Point]:
        return random_points(SearchSpec("ties", BOTH, algorithm=Algorithm.RANDOM, trials=count, seed=seed))

    assert points(few) == points(few + more)[:few]
    assert all(0.1 <= float(point["density"]) <= 0.9 and point["scale"] in (0.5, 1.0) for point in points(few))


def test_random_points_cover_few_values_wholly() -> None:
    axes = (Axis("alpha", values=(0.0, 0.5, 1.0)), Axis("weight", values=(0.25, 0.75)), Axis("method", values=("slerp", "wise_ft")))
    points = random_points(SearchSpec("slerp", axes, algorithm=Algorithm.RANDOM, trials=5))
    assert len(points) == 5
    assert all(points.count(point) == 1 for point in points)


@pytest.mark.parametrize("algorithm", ["random", "optuna"])
def test_more_trials_than_points_are_refused(algorithm: str) -> None:
    with pytest.raises(ConfigError, match="7 trials of 6 points that there are; use a grid, or 6 trials at most"):
        chooser_of(SearchSpec("ties", (Axis("density", values=(0.1, 0.2, 0.3)), BOTH[1]), algorithm=Algorithm(algorithm), trials=7))


def test_a_grid_beyond_measure_is_refused() -> None:
    axes = tuple(Axis(f"alpha[*.{layer}.*]", 0.0, 1.0) for layer in range(4))
    with pytest.raises(ConfigError, match="the grid has 14,641 points, more than 10,000"):
        chooser_of(SearchSpec("wise_ft", axes))


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 3), st.integers(0, 15))
def test_optuna_goes_on_to_the_same_list_from_wherever_it_stopped(seed: int, stop: int) -> None:
    spec = SearchSpec("wise_ft", (ALPHA,), algorithm=Algorithm.OPTUNA, trials=15, seed=seed)
    whole = play(Suggested(spec), {})
    begun: dict[int, Trial] = {}
    play(Suggested(spec), begun, stop)
    assert play(Suggested(spec), begun) == whole


def test_optuna_learns() -> None:
    early, late = [], []
    for seed in range(3):
        spec = SearchSpec("wise_ft", (ALPHA,), algorithm=Algorithm.OPTUNA, trials=30, seed=seed)
        points = [abs(float(point["alpha"]) - 0.3) for point in play(Suggested(spec), {})]
        early += points[:10]
        late += points[15:]
    assert sum(late) / len(late) < 0.7 * sum(early) / len(early)


def test_optuna_never_tries_a_point_twice_and_leaves_out_what_a_method_lacks() -> None:
    axes = (Axis("method", values=("slerp", "wise_ft")), Axis("alpha", values=(0.0, 0.5, 1.0)), Axis("weight", values=(0.25, 0.75)))
    spec = SearchSpec("slerp", axes, algorithm=Algorithm.OPTUNA, trials=5)
    chooser = Suggested(spec)
    points: list[Point] = []
    for number in range(5):
        point = chooser.ask(number)
        assert point is not None
        points.append(point)
        chooser.tell(Trial(number, point, 0.5))
    assert sorted(map(str, points)) == sorted(map(str, grid_points(spec)))


SUITE = Suite((get_task("parity"), get_task("count"), get_task("read")), (get_task("name"), get_task("cell")), Split.VALIDATION)


@pytest.mark.parametrize(
    ("goal", "shares"),
    [
        (Goal.AVERAGE, {"name": 0.2, "cell": 0.2, "parity": 0.2, "count": 0.2, "read": 0.2}),
        (Goal.STREAM, {"parity": 0.5, "count": 0.5}),
        (Goal.HELD_OUT, {"name": 0.5, "cell": 0.5}),
        (Goal.NEW, {"count": 1.0}),
        (Goal.BALANCED, {"name": 0.05, "cell": 0.05, "parity": 0.05, "count": 0.8, "read": 0.05}),
    ],
)
def test_goals(goal: Goal, shares: dict[str, float]) -> None:
    found = shares_of(SearchSpec("wise_ft", (ALPHA,), goal=goal, weight=0.8), SUITE, "count")
    assert found == pytest.approx(shares)  # 0.2 / 4 is not 0.05 to the bit
    scores = {name: TaskScore(place / 10, 0.01 * place, 9) for place, name in enumerate(("name", "cell", "parity", "count", "read"))}
    mean = sum(share * scores[name].accuracy for name, share in shares.items())
    spread = math.hypot(*(share * scores[name].stderr for name, share in shares.items()))
    # one rounding per product against `fsum`
    assert (value_of(scores, found), stderr_of(scores, found)) == pytest.approx((mean, spread), abs=1e-15)


def trial(number: int, value: float, stopped: bool = False, **point: float | str) -> Trial:
    return Trial(number, point, value, stopped=stopped)


def test_the_best_whole_trial_is_picked() -> None:
    assert pick([trial(0, 0.5, alpha=0.1), trial(1, 0.9, True, alpha=0.2), trial(2, 0.7, alpha=0.3)]).number == 2
    with pytest.raises(InputError, match="none of 1 trials was asked all samples"):
        pick([trial(0, 0.5, True, alpha=0.1)])


def test_of_a_plateau_the_middle_is_picked_whatever_the_order() -> None:
    plateau = [trial(number, 0.9, alpha=number / 10) for number in range(2, 7)]
    others = [trial(number, 0.1, alpha=number / 10) for number in (0, 1, 7, 8, 9, 10)]
    assert pick(plateau + others).number == pick([*others, *reversed(plateau)]).number == 4
    assert pick(plateau[:2]).number == 2, "of equals the lower number"


def test_a_tie_between_methods() -> None:
    tied = [trial(0, 0.5, method="ties", density=0.1), trial(1, 0.5, method="slerp", weight=0.5), trial(2, 0.5, method="slerp", weight=0.6)]
    assert pick([*tied, trial(3, 0.4, method="slerp", weight=0.9)]).number == 1
