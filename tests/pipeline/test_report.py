"""Reports of hand-made runs: every figure in files and tables is checked against one worked out by hand."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from evaluators.scores import TaskScore
from foundation.errors import InputError
from pipeline.report import print_tables, run_scores, write_report
from pipeline.report.comparison import arms_of, estimate, estimate_text, paired_differences, percent
from pipeline.report.run_scores import RunScores, StageScores, score_matrix, stage_metrics, summary
from pipeline.report.tables import markdown, stage_grid

HALF = "0.5 x previous + 0.5 x tuned"
STREAM, HELD_OUT = ("a", "b"), ("h", "k")
EXACT = 1e-12  # a few float64 roundings of sums of numbers below one


def scores(*accuracies: float) -> dict[str, TaskScore]:
    return {task: TaskScore(value, 0.03, 100) for task, value in zip((*HELD_OUT, *STREAM), accuracies, strict=True)}


def merged_run(arm: str = "wise", seed: int = 0, up: float = 0.0, weights: str = HALF) -> RunScores:
    """Held-out h, k; stream a, b. `up` raises the last model's score on b."""
    stages = (
        StageScores(0, None, "base", scores(0.9, 0.8, 0.2, 0.1)),
        StageScores(1, "a", "before", scores(0.6, 0.4, 0.9, 0.1)),
        StageScores(1, "a", "after", scores(0.8, 0.7, 0.7, 0.1)),
        StageScores(2, "b", "before", scores(0.5, 0.3, 0.3, 0.8)),
        StageScores(2, "b", "after", scores(0.7, 0.7, 0.6, 0.5 + up)),
    )
    return RunScores(arm, seed, STREAM, HELD_OUT, weights, stages, "mlp, learning rate 0.0006")


def plain_run(seed: int = 0, down: float = 0.0) -> RunScores:
    """The same stream without merges."""
    stages = (
        StageScores(0, None, "base", scores(0.9, 0.8, 0.2, 0.1)),
        StageScores(1, "a", "after", scores(0.6, 0.4, 0.9, 0.1)),
        StageScores(2, "b", "after", scores(0.3, 0.1, 0.2 - down, 0.9)),
    )
    return RunScores("plain", seed, STREAM, HELD_OUT, "", stages, "mlp, learning rate 0.0006")


def until(run: RunScores, models: int) -> RunScores:
    return RunScores(run.arm, run.seed, run.stream, run.held_out, run.weights, run.stages[:models], run.training)


@pytest.fixture
def several() -> list[RunScores]:
    return [plain_run(0), plain_run(1, down=0.04), merged_run(seed=0), merged_run(seed=1, up=0.2)]


def text_of(runs: list[RunScores], width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    print_tables(runs, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_score_matrix_by_role() -> None:
    np.testing.assert_array_equal(
        score_matrix(merged_run(), "before").scores, [[0.9, 0.8, 0.2, 0.1], [0.6, 0.4, 0.9, 0.1], [0.5, 0.3, 0.3, 0.8]]
    )
    np.testing.assert_array_equal(score_matrix(merged_run(), "after").scores[2], [0.7, 0.7, 0.6, 0.5])


def test_figures_of_a_stage() -> None:
    figures = stage_metrics(merged_run(), "after", 2)
    expected = {
        "acc/h": 0.7,
        "acc/b": 0.5,
        "acc/average": 0.625,
        "acc_stderr/average": 0.03 / 2,
        "acc/held_out": 0.7,
        "acc_stderr/held_out": 0.03 / np.sqrt(2),
        "acc/stream": 0.55,
        "acc/seen": 0.55,
        "acc/incremental": (0.7 + 0.55) / 2,
        "learning/own": (0.7 + 0.5) / 2,
        "learning/gain": (0.5 + 0.4) / 2,
        "learning/final_gain": (0.4 + 0.4) / 2,
        "forgetting/stream": 0.1,
        "forgetting/held_out": (0.2 + 0.1) / 2,
        "drift/held_out": -0.15,
        "transfer/backward": -0.1,
        "transfer/forward": 0.0,
    }
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=EXACT), name


def test_what_is_not_defined_is_left_out() -> None:
    base = stage_metrics(merged_run(), "after", 0)
    assert base["acc/average"] == 0.5
    assert not {"forgetting/stream", "learning/gain", "acc/seen"} & set(base)
    assert "forgetting/stream" not in stage_metrics(merged_run(), "before", 1)


def test_summary_holds_the_model_that_goes_on_and_the_tuned_one() -> None:
    figures = summary(merged_run())
    assert (figures["acc/average"], figures["before_merge/acc/average"]) == pytest.approx((0.625, 0.475), abs=EXACT)
    assert figures["before_merge/forgetting/stream"] == pytest.approx(0.6, abs=EXACT)
    assert not any(name.startswith("before_merge/") for name in summary(plain_run()))


def test_scores_csv(tmp_path) -> None:
    write_report([merged_run()], tmp_path, "A run")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "scores.csv").read_text())))
    assert len(rows) == 5 * 4
    assert (tmp_path / "scores.csv").read_text().splitlines()[:2] == [
        "arm,seed,stage,trained,role,task,accuracy,stderr,samples",
        "wise,0,0,,base,h,0.9,0.03,100",
    ]
    assert [(row["stage"], row["trained"], row["role"]) for row in rows[4::4]] == [
        ("1", "a", "before"),
        ("1", "a", "after"),
        ("2", "b", "before"),
        ("2", "b", "after"),
    ]
    assert [float(row["accuracy"]) for row in rows[-4:]] == [0.7, 0.7, 0.6, 0.5]


def test_matrices_and_summary_csv(tmp_path) -> None:
    write_report([merged_run()], tmp_path, "A run")
    assert (
        tmp_path / "matrix_before.csv"
    ).read_text() == "stage,trained,h,k,a,b\n0,base,0.9,0.8,0.2,0.1\n1,a,0.6,0.4,0.9,0.1\n2,b,0.5,0.3,0.3,0.8\n"
    assert (tmp_path / "matrix_after.csv").read_text().endswith("1,a,0.8,0.7,0.7,0.1\n2,b,0.7,0.7,0.6,0.5\n")
    figures = {row["metric"]: float(row["value"]) for row in csv.DictReader(io.StringIO((tmp_path / "summary.csv").read_text()))}
    assert figures == summary(merged_run())


def test_files_of_one_run_and_of_several(tmp_path, several) -> None:
    one = write_report([merged_run()], tmp_path / "one", "A run")
    names = {"scores.csv", "summary.csv", "matrix_before.csv", "matrix_after.csv", "heatmap.png", "before_after.png", "report.md"}
    assert {path.name for path in one} == names == {path.name for path in (tmp_path / "one").iterdir()}
    many = {path.name for path in write_report(several, tmp_path / "many", "Arms")}
    assert {"comparison.csv", "differences.csv", "comparison.png", "heatmap_plain.png", "before_after_wise.png"} <= many
    assert {"matrix_after_plain_seed1.csv", "matrix_before_wise_seed0.csv"} <= many
    assert "matrix_before_plain_seed0.csv" not in many


def test_same_bytes_twice_and_pictures_that_show_something(tmp_path, several) -> None:
    first, second = (write_report(several, tmp_path / name, "Arms") for name in ("first", "second"))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    pictures = [path for path in first if path.suffix == ".png"]
    assert len(pictures) == 5
    for path in pictures:
        picture = Image.open(path).convert("RGB")
        assert min(picture.size) > 300
        assert len(picture.getcolors(maxcolors=1 << 20)) > 50, path.name
        assert b"Software" not in path.read_bytes()
    worse = [plain_run(0), plain_run(1), *several[2:]]
    changed = write_report(worse, tmp_path / "third", "Arms")
    different = {
        path.name for path in changed if path.suffix == ".png" and path.read_bytes() != (tmp_path / "first" / path.name).read_bytes()
    }
    assert different == {"heatmap_plain.png", "before_after_plain.png", "comparison.png"}


def test_pictures_do_not_depend_on_the_users_matplotlib_settings(tmp_path) -> None:
    import matplotlib as mpl

    write_report([merged_run()], tmp_path / "first", "A run")
    with mpl.rc_context({"font.size": 20, "lines.linewidth": 9}):
        write_report([merged_run()], tmp_path / "second", "A run")
        assert mpl.rcParams["font.size"] == 20
    for name in ("heatmap.png", "before_after.png"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_arms_by_hand(several) -> None:
    plain, wise = arms_of(several)
    # last model, mean of h k a b: plain .375 and .365, wise .625 and .675; s/√n of two values is half their distance
    assert plain.figures["acc/average"].mean == pytest.approx(0.37, abs=EXACT)
    assert plain.figures["acc/average"].stderr == pytest.approx(0.005, abs=EXACT)
    assert wise.figures["acc/average"].mean == pytest.approx(0.65, abs=EXACT)
    (pair,) = paired_differences([plain, wise])
    assert (pair.first, pair.second) == ("plain", "wise")
    assert pair.figures["acc/average"].mean == pytest.approx((0.25 + 0.31) / 2, abs=EXACT)
    assert pair.figures["acc/average"].stderr == pytest.approx(0.03, abs=EXACT)
    assert estimate([0.4]).stderr is None


def test_pairs_need_equal_training_and_base(several) -> None:
    other = RunScores("other", 0, STREAM, HELD_OUT, "", plain_run().stages, "mlp, learning rate 0.0002")
    assert not paired_differences(arms_of([other, merged_run()]))
    base = (StageScores(0, None, "base", scores(0.91, 0.8, 0.2, 0.1)), *plain_run().stages[1:])
    elsewhere = RunScores("elsewhere", 0, STREAM, HELD_OUT, "", base, merged_run().training)
    assert not paired_differences(arms_of([elsewhere, merged_run()]))


def test_runs_under_way_are_compared_where_all_have_come(several) -> None:
    part = until(several[3], 3)
    arms = arms_of([*several[:3], part])
    assert {arm.stage for arm in arms} == {1}
    assert arms[0].figures["acc/a"].mean == pytest.approx(0.9, abs=EXACT)
    assert "after stage 1 of 2, in %" in text_of([*several[:3], part], 100)


@pytest.mark.parametrize("models", [1, 2, 3, 4])
def test_a_run_under_way_has_a_report(tmp_path, models) -> None:
    part = until(merged_run(), models)
    assert write_report([part], tmp_path, "Under way")
    assert "0 base" in text_of([part], 80)


def test_a_suite_without_held_out_tasks(tmp_path) -> None:
    runs = [RunScores("wise", seed, STREAM, (), HALF, merged_run().stages) for seed in (0, 1)]
    page = write_report(runs, tmp_path, "Stream alone")[-1].read_text()
    assert "| held-out mean" not in page
    assert "55.0 ± 0.0" in page


@pytest.mark.parametrize("width", [100, 80, 50])
def test_terminal_tables_of_a_run(width) -> None:
    text = text_of([merged_run()], width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for figure in ("0 base", "1 a", "before", "after", "90.0", "62.5 ± 1.5", "47.5 ± 1.5", "-15.0", HALF):
        assert figure in text, figure


def test_terminal_table_folds_and_loses_nothing() -> None:
    names = tuple(f"a rather long task {number}" for number in range(6))
    everything = {name: TaskScore(0.01 * number + 0.5, 0.0, 10) for number, name in enumerate(names)}
    run = RunScores("long", 0, names[:3], names[3:], "", (StageScores(0, None, "base", everything),))
    text = text_of([run], 60)
    assert max(map(len, text.splitlines())) <= 60
    assert all(name in text for name in names)
    assert all(percent(score.accuracy) in text for score in everything.values())


@pytest.mark.parametrize("width", [100, 80, 50, 40])
def test_terminal_tables_of_several(several, width) -> None:
    text = text_of(several, width)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for figure in ("37.0 ± 0.5", "65.0 ± 2.5", "+28.0 ± 3.0", "no merge", HALF):
        assert figure in flat, figure
    assert "±" not in text_of([plain_run(0), merged_run()], width).split("wise: average")[0], "only the sentence tells of samples"


def test_markdown_shows_the_base_as_stage_0(tmp_path) -> None:
    table = markdown(stage_grid(merged_run()))
    assert "| 0 base | base | 90.0 | 80.0 | 85.0 | 20.0 | 10.0 | 15.0 | 50.0 |" in table
    assert "| 1 a | before | 60.0 | 40.0 | 50.0 | 90.0 | 10.0 | 50.0 | 50.0 |" in table
    assert "|  | after | 80.0 | 70.0 | 75.0 | 70.0 | 10.0 | 40.0 | 57.5 |" in table
    write_report([merged_run()], tmp_path, "My run")
    page = (tmp_path / "report.md").read_text()
    assert page.startswith("# My run\n")
    assert table in page
    assert f"## wise ({HALF})" in page


def broken() -> Iterator[tuple[list[RunScores], str]]:
    run = merged_run()
    yield [], "no runs"
    yield [RunScores("x", 0, STREAM, HELD_OUT, "", run.stages[1:])], "needs the base as stage 0"
    yield [RunScores("x", 0, STREAM, HELD_OUT, "", (run.stages[0], *run.stages[3:]))], "without gaps"
    yield [RunScores("x", 0, STREAM[::-1], HELD_OUT, "", run.stages)], "trained 'a', but the stream is"
    yield [RunScores("x", 0, STREAM, (*HELD_OUT, "m"), "", run.stages)], "lacks the scores of m"
    yield [merged_run(), merged_run()], "report each seed once"
    yield [merged_run(), RunScores("wise", 1, STREAM, HELD_OUT, HALF, run.stages, "other")], "differ in more than the seed"
    yield [merged_run("a b"), merged_run("a:b")], "share the file name"


@pytest.mark.parametrize(("runs", "message"), list(broken()))
def test_refuses_before_writing(tmp_path, runs, message) -> None:
    with pytest.raises(InputError, match=message):
        write_report(runs, tmp_path / "report", "A run")
    assert not Path(tmp_path / "report").exists()


def test_numbers_as_text() -> None:
    assert [percent(0.6249), percent(-0.0001), percent(0.0001, signed=True), percent(0.05, signed=True)] == ["62.5", "0.0", "0.0", "+5.0"]
    assert estimate_text(None) == estimate_text(estimate([float("nan")])) == "–"
    assert set(run_scores.MEASURES) & set(summary(merged_run())) == set(run_scores.MEASURES)
