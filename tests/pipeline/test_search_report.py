"""The figures, tables, pictures and files of searches, from trials made by hand."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from searched_stages import GRID, HELD_OUT, SAMPLES, STREAM, searched

from evaluators.scores import TaskScore, task_score
from foundation.errors import InputError
from pipeline.report.search_figures import (
    Group,
    Searched,
    by_arm,
    end_name,
    front,
    margin,
    mean_points,
    measured,
    pareto,
    point_words,
    scale_of,
    scales_of,
    score_on_test,
)
from pipeline.report.search_tables import grids_of, others_words, picks_grid, seeds_grid, trials_grid
from pipeline.report.search_write import pictures, trials_csv, write_search_report
from pipeline.report.tables import Grid
from pipeline.search.spec import Goal, Point

TWO: list[Point] = [{"density": d, "scale": s} for d in (0.2, 0.8) for s in (0.5, 1.0)]
MIXED: tuple[Point, ...] = (
    {"method": "wise_ft", "alpha": 0.0},
    {"method": "wise_ft", "alpha": 0.5},
    {"method": "wise_ft", "alpha": 1.0},
    {"method": "ties", "density": 0.2},
)


def cells(grid: Grid, row: int = 0) -> dict[str, str]:
    return dict(zip(grid.columns, grid.rows[row], strict=True))


def test_groups_and_their_standard_errors() -> None:
    found = searched(stage=2)
    tuned = found.trials[0]
    assert found.tasks == (*HELD_OUT, "count", "locate")
    assert found.members(Group.OTHERS) == (*HELD_OUT, "count")
    new, others = measured(found, tuned, Group.NEW), measured(found, tuned, Group.OTHERS)
    assert new is not None
    assert others is not None
    assert (new.value, new.stderr) == (0.9, 0.03)
    assert others.value == pytest.approx(0.3)
    assert others.stderr == pytest.approx(math.sqrt(3 * 0.03**2) / 3)


@pytest.mark.parametrize("goal", list(Goal))
def test_shares_of_a_goal_sum_to_one(goal: Goal) -> None:
    found = searched(stage=2, goal=goal, weight=0.25)
    assert sum(found.shares().values()) == pytest.approx(1)
    expected = {Goal.NEW: ("locate",), Goal.HELD_OUT: HELD_OUT, Goal.STREAM: STREAM}.get(goal, found.tasks)
    assert set(found.members(Group.GOAL)) == set(expected)
    if goal is Goal.BALANCED:
        assert found.shares()["locate"] == 0.25


def test_parts_of_a_score_are_no_tasks() -> None:
    found = searched()
    trials = tuple(replace(trial, scores={**trial.scores, "read/acc@1": TaskScore(0.1, 0.0, SAMPLES)}) for trial in found.trials)
    assert replace(found, trials=trials).tasks == found.tasks


def test_margin_without_answers_has_no_standard_error() -> None:
    found = margin(searched())
    assert found is not None
    assert found.stderr is None
    alone = searched(points=GRID[:1])
    assert margin(alone) is None


def answered() -> Searched:
    """A search whose ten samples of the task just learned are known: the pick has nine right, the next eight of them and so on."""
    found = searched(goal="new")
    rights = {number: max(0, 9 - place) for place, number in enumerate(sorted(range(5), key=lambda number: -found.trials[number].value))}
    answers = {number: {"count": [1.0] * right + [0.0] * (10 - right)} for number, right in rights.items()}
    trials = []
    for trial in found.trials:
        score = task_score(answers[trial.number]["count"])
        trials.append(replace(trial, value=score.accuracy, scores={**trial.scores, "count": score}))
    return replace(found, trials=tuple(trials), answers=answers)


def test_paired_standard_error_of_the_margin() -> None:
    known = answered()
    second = known.runner_up
    assert second is not None
    differences = [1.0] + [0.0] * 9
    variance = sum((each - 0.1) ** 2 for each in differences) / 9
    result = margin(known)
    assert result is not None
    assert result.stderr == pytest.approx(math.sqrt(variance / 10))
    assert "paired s.e." in picks_grid([known]).columns
    cut = replace(known, answers={**known.answers, second.number: {"count": known.answers[second.number]["count"][:-1]}})
    assert margin(cut).stderr is None  # type: ignore[union-attr]
    other = replace(known, answers={**known.answers, second.number: {"count": [1.0] * 10}})
    assert margin(other).stderr is None, "answers that do not make up the score"  # type: ignore[union-attr]


def test_every_trial_is_held_against_the_pick() -> None:
    known = answered()
    grid = trials_grid(known)
    shown = [cells(grid, place)["− pick"] for place in range(5)]
    assert shown[known.pick] == "–"
    worst = min(known.trials, key=lambda trial: trial.value)
    differences = [1.0] * 4 + [0.0] * 6
    error = math.sqrt(sum((each - 0.4) ** 2 for each in differences) / 9 / 10)
    assert shown[worst.number] == f"-40.0 ± {100 * error:.1f}"
    row = list(csv.DictReader(io.StringIO(trials_csv([known]))))[worst.number]
    assert float(row["minus_pick"]) == pytest.approx(-0.4)
    assert float(row["minus_pick_stderr"]) == pytest.approx(error)
    assert "− pick" not in trials_grid(searched()).columns
    assert pictures([known])["curve.png"] != pictures([replace(known, answers={})])["curve.png"]


def test_test_score_is_the_goal_of_the_test_split() -> None:
    test = {task: TaskScore(0.4, 0.02, 400) for task in (*HELD_OUT, *STREAM)}
    found = score_on_test(searched(test=test))
    assert found is not None
    assert (found.value, found.stderr) == (pytest.approx(0.4), pytest.approx(0.01))
    assert score_on_test(searched(test={"read": TaskScore(0.4, 0.02, 400)})) is None


def test_a_stopped_trial_is_no_runner_up() -> None:
    found = searched()
    assert found.runner_up is not None
    without = searched(stopped=[found.runner_up.number])
    assert without.runner_up is not None
    assert without.runner_up.number != found.runner_up.number
    assert found.runner_up.number not in front(without, Group.OTHERS)
    assert others_words(without).endswith("; 1 stopped early")


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_front_holds_whom_nobody_dominates(points: list[tuple[int, int]]) -> None:
    best = pareto([(float(x), float(y)) for x, y in points])
    assert best
    for place, (x, y) in enumerate(points):
        beaten = any((a > x and b >= y) or (a >= x and b > y) for a, b in points)
        assert (place in best) is not beaten


def test_scales() -> None:
    assert scale_of("alpha", [1.0, 0.0, 0.5, 0.5]).values == (0.0, 0.5, 1.0)
    assert scale_of("rate", [1e-5, 1e-3, 1e-4]).logarithmic
    assert not scale_of("alpha", [0.02, 0.3, 0.51, 0.7, 0.99]).logarithmic
    assert not scale_of("alpha", [0.0, 0.001, 1.0]).logarithmic
    assert scale_of("method", ["ties", "slerp"]).values == ("ties", "slerp")
    assert [scale.name for scale in scales_of([searched(points=MIXED)])] == ["method", "alpha", "density"]


def test_ends_are_named_by_the_weight_of_the_previous_model() -> None:
    assert (end_name({"alpha": 1.0}), end_name({"alpha": 0}), end_name({"alpha": 0.5})) == ("previous", "tuned", None)
    assert end_name({"alpha_early": 1.0, "alpha_late": 1}) == "previous"
    assert end_name({"alpha": 1.0, "scale": 1.0}) is None
    assert end_name({"scale": 1.0}) is None
    assert point_words({"method": "ties", "density": 0.25}) == "ties, density 0.25"


def test_means_over_seeds_only_of_shared_points() -> None:
    first, second = searched(seed=0), searched(seed=1, points=[*GRID[:2], {"alpha": 0.9}])
    shared = mean_points([first, second], Group.OTHERS)
    assert [point["alpha"] for point, _ in shared] == [0.0, 0.25]
    assert shared[0][1].mean == pytest.approx(0.305)
    assert shared[0][1].stderr == pytest.approx(0.005)
    assert mean_points([first], Group.OTHERS) == []


def test_tables_say_what_was_chosen_over_what() -> None:
    found = searched()
    row = cells(picks_grid([found]))
    second = found.runner_up
    assert second is not None
    assert (row["picked"], row["runner-up"]) == (point_words(found.picked.point), point_words(second.point))
    assert row["margin"] == f"+{100 * (found.picked.value - second.value):.1f}"
    assert row["chosen over"].startswith("4: ")
    assert "paired s.e." not in row
    assert "test" not in row
    assert "validation split" in picks_grid([found]).title
    shown = trials_grid(found)
    assert [cells(shown, place)[""].split(",")[0] for place in (found.pick, second.number)] == ["picked", "runner-up"]
    assert "all others" not in trials_grid(replace(found, held_out=(*HELD_OUT, "locate"))).columns


def test_seeds_in_the_mean() -> None:
    assert seeds_grid([searched()]) is None
    test = {task: TaskScore(0.4, 0.02, 400) for task in (*HELD_OUT, *STREAM)}
    several = [searched(stage, seed, test=test) for stage in (1, 2) for seed in (0, 1)]
    grid = seeds_grid(several)
    assert grid is not None
    assert len(grid.rows) == 2
    assert cells(grid)["test"].startswith("40.0 ± 0.0")
    assert cells(grid)["test − value"].startswith("-") or cells(grid)["test − value"].startswith("−")
    assert len(grids_of(several)) == 2 + 4


ASKED = {
    "one seed": ([searched()], {"curve", "frontier_held_out", "frontier_others"}),
    "five panels, seeds": (
        [replace(searched(1, seed), stage=stage) for stage in range(1, 6) for seed in (0, 1, 2)],
        {"curve", "frontier_held_out", "frontier_others"},
    ),
    "all others held out": ([searched(held_out=(*HELD_OUT, "locate"))], {"curve", "frontier_held_out"}),
    "nothing held out": ([searched(held_out=())], {"curve", "frontier_others"}),
    "no new task": ([searched(new="")], {"curve"}),
    "two parameters": ([searched(points=TWO, kept=lambda p: float(p["density"]))], {"parallel", "frontier_held_out", "frontier_others"}),
    "methods, stopped": (
        [searched(seed=seed, points=MIXED, stopped=[1]) for seed in (0, 1)],
        {"parallel", "frontier_held_out", "frontier_others"},
    ),
    "names": ([searched(points=[{"method": "ties"}, {"method": "slerp"}])], {"curve", "frontier_held_out", "frontier_others"}),
    "one trial": ([searched(points=GRID[:1])], {"curve", "frontier_held_out", "frontier_others"}),
    "one logarithmic": (
        [searched(points=[{"rate": 10.0**-k} for k in (5, 4, 3)], kept=lambda p: float(p["rate"]))],
        {"curve", "frontier_held_out", "frontier_others"},
    ),
    "values alone": (
        [replace(searched(), trials=tuple(replace(trial, scores={}) for trial in searched().trials))],
        {"curve"},
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_pictures(name: str) -> None:
    searches, expected = ASKED[name]
    drawn = pictures(searches, "_arm")
    assert set(drawn) == {f"{kind}_arm.png" for kind in expected}
    for image in drawn.values():
        found = Image.open(io.BytesIO(image))
        assert min(found.size) > 300
        assert len(found.convert("RGB").getcolors(1 << 20) or []) > 20  # more than a blank page


def test_the_same_trials_give_the_same_bytes(tmp_path: Path) -> None:
    searches = [searched(seed=seed) for seed in (0, 1)]
    first = write_search_report(searches, tmp_path / "a", "Alpha", ["Why it was searched."])
    second = write_search_report(searches, tmp_path / "b", "Alpha", ["Why it was searched."])
    assert [path.name for path in first][-1] == "search.md"
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    page = first[-1].read_text()
    assert page.startswith("# Alpha\n\nWhy it was searched.\n")
    assert "on the validation split" in page
    assert all(f"({path.name})" in page for path in first if path.suffix == ".png")


def test_arms_have_files_of_their_own(tmp_path: Path) -> None:
    rate = searched(points=[{"learning_rate": 1e-4}, {"learning_rate": 1e-3}], arm="sequential, rate")
    paths = write_search_report([searched(), rate], tmp_path, "Both")
    names = {path.name for path in paths}
    assert {"curve_searched.png", "curve_sequential-rate.png"} <= names
    rows = list(csv.DictReader(io.StringIO((tmp_path / "trials.csv").read_text())))
    assert [row["learning_rate"] for row in rows][-2:] == ["0.0001", "0.001"]
    assert rows[0]["learning_rate"] == ""


def test_csv_has_full_precision() -> None:
    found = searched(points=[{"alpha": 0.123456789}])
    row = next(csv.DictReader(io.StringIO(trials_csv([found]))))
    assert float(row["alpha"]) == 0.123456789
    assert float(row["value"]) == found.picked.value
    assert (row["split"], row["picked"], row["stopped"]) == ("validation", "1", "0")
    assert float(row["acc/read"]) == found.picked.scores["read"].accuracy


def broken(**changed: object) -> Searched:
    return replace(searched(), **changed)  # type: ignore[arg-type]


def test_refusals(tmp_path: Path) -> None:
    trials = searched().trials
    with pytest.raises(InputError, match="the pick is trial 9"):
        broken(pick=9)
    with pytest.raises(InputError, match="two trials share a number"):
        broken(trials=(*trials, trials[0]))
    with pytest.raises(InputError, match="trial 0 is no finite number"):
        broken(trials=(replace(trials[0], value=math.nan), *trials[1:]))
    with pytest.raises(InputError, match="avarage"):
        broken(goal="avarage")
    with pytest.raises(InputError, match="no search to report on"):
        write_search_report([], tmp_path / "report", "Nothing")
    with pytest.raises(InputError, match="two searches of one stage and seed"):
        by_arm([searched(), searched()])
    with pytest.raises(InputError, match="would share the file name part"):
        write_search_report([searched(arm="a b"), searched(arm="a/b")], tmp_path / "report", "Alike")
    assert not (tmp_path / "report").exists()
