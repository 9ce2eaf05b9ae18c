"""What a report holds beyond one run's own scores: intervals over seeds, the joint run as a bound, parts of scores; and old rows."""

import csv
import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from evaluators.scores import TaskScore
from pipeline.report import write_report
from pipeline.report.comparison import arms_of, estimate, estimate_text
from pipeline.report.run_scores import RunScores, StageScores, score_matrix
from pipeline.report.tables import comparison_grid, markdown
from pipeline.results import Row, learns_jointly, read_rows, write_rows

EXACT = 1e-12  # a few float64 roundings
HALF = "0.5 x previous + 0.5 x tuned"


def scores(h: float, a: float, b: float) -> dict[str, TaskScore]:
    return {task: TaskScore(value, 0.03, 100) for task, value in {"h": h, "a": a, "b": b}.items()}


def wise(seed: int = 0, own: float = 0.6) -> RunScores:
    stages = (
        StageScores(0, None, "base", scores(0.9, 0.2, 0.1)),
        StageScores(1, "a", "before", scores(0.5, 0.9, 0.1)),
        StageScores(1, "a", "after", scores(0.7, 0.8, 0.1)),
        StageScores(2, "b", "before", scores(0.4, 0.3, 0.8)),
        StageScores(2, "b", "after", scores(0.6, 0.5, own)),
    )
    return RunScores("wise", seed, ("a", "b"), ("h",), HALF, stages, "mlp, 100 steps")


def joint(arm: str = "joint", seed: int = 0, first: float = 0.95, training: str = "mlp, 100 steps") -> RunScores:
    stages = (
        StageScores(0, None, "base", scores(0.9, 0.2, 0.1)),
        StageScores(1, "a", "after", scores(0.9, first, 0.1)),
        StageScores(2, "b", "after", scores(0.9, 0.85, 0.9)),
    )
    return RunScores(arm, seed, ("a", "b"), ("h",), "", stages, training, joint=True)


def test_intransigence_beside_a_joint_run() -> None:
    """After the merge (0.95 − 0.8 + 0.9 − 0.6) / 2, before it (0.95 − 0.9 + 0.9 − 0.8) / 2; the joint run is its own bound."""
    found, bound = arms_of([wise(), joint()])
    assert found.figures["intransigence"].mean == pytest.approx(0.225, abs=EXACT)
    assert found.figures["before_merge/intransigence"].mean == pytest.approx(0.075, abs=EXACT)
    assert "intransigence" not in bound.figures
    assert "| intransigence, from joint | 22.5 | – |" in markdown(comparison_grid([found, bound]))


def test_no_intransigence_without_a_joint_run_of_the_same_base() -> None:
    other_base = replace(joint(), stages=(StageScores(0, None, "base", scores(0.8, 0.2, 0.1)), *joint().stages[1:]))
    other_order = replace(joint(), stream=("b", "a"), stages=joint().stages[:1])
    for bound in (replace(joint(), joint=False), joint(seed=1), other_base, other_order):
        assert "intransigence" not in arms_of([wise(), bound])[0].figures
    assert "intransigence" not in markdown(comparison_grid(arms_of([wise(), replace(joint(), joint=False)])))


def test_of_several_joint_runs_the_one_that_trains_alike_counts() -> None:
    runs = [wise(), joint("long", first=1.0, training="mlp, 900 steps"), joint("short")]
    assert arms_of(runs)[0].figures["intransigence"].mean == pytest.approx(0.225, abs=EXACT)
    assert arms_of(runs[:2])[0].figures["intransigence"].mean == pytest.approx(0.25, abs=EXACT)


def test_intervals_over_seeds(tmp_path: Path) -> None:
    """b of the last model is 0.6 and 0.8: mean 0.7, standard error 0.1, t(1) = 12.7062."""
    runs = [wise(), wise(1, own=0.8)]
    figure = arms_of(runs)[0].figures["acc/b"]
    assert (figure.mean, figure.stderr) == (pytest.approx(0.7), pytest.approx(0.1))
    assert figure.half_width == pytest.approx(1.27062, abs=1e-5)
    assert estimate_text(figure, interval=True) == "70.0 ± 10.0 (127.1)"
    assert estimate_text(estimate([0.7]), interval=True) == "70.0"
    write_report(runs, tmp_path, "Seeds")
    (row,) = (row for row in csv.DictReader(io.StringIO((tmp_path / "comparison.csv").read_text())) if row["metric"] == "acc/b")
    assert (float(row["low"]), float(row["high"])) == pytest.approx((0.7 - 1.27062, 0.7 + 1.27062), abs=1e-5)


def test_parts_of_scores_are_rows_and_no_tasks(tmp_path: Path) -> None:
    """A harness's task is a held-out column like another; a part of a score is a row of scores.csv and nowhere else."""
    part = {"a/f1": TaskScore(0.4, 0.01, 50), "a/yes-no": TaskScore(0.5, 0.02, 60)}
    run = replace(wise(), stages=tuple(replace(entry, scores={**part, **entry.scores}) for entry in wise().stages))
    write_report([run], tmp_path / "parts", "Parts")
    write_report([wise()], tmp_path / "plain", "Parts")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "parts" / "scores.csv").read_text())))
    assert [row["task"] for row in rows[:5]] == ["h", "a", "b", "a/f1", "a/yes-no"]
    assert (rows[3]["accuracy"], rows[3]["stderr"], rows[3]["samples"]) == ("0.4", "0.01", "50")
    assert len(rows) == 5 * 5
    for name in ("summary.csv", "matrix_after.csv", "heatmap.png", "report.md"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
    assert score_matrix(run, "after").tasks == ("h", "a", "b")


def row(stage: int, role: str, learned: tuple[str, ...] = (), task: str | None = None) -> Row:
    return Row("arm", 0, stage, role, task, "", "", ("a", "b", "c"), ("h",), "evaluate-1", "finetune-1", learned=learned)


def test_a_joint_run_is_told_by_what_its_stages_learn() -> None:
    base = row(0, "base")
    assert learns_jointly([base, row(1, "after", ("a",)), row(2, "after", ("a", "b"))])
    assert not learns_jointly([base, row(1, "after", ("a",)), row(2, "after", ("b",))])
    assert not learns_jointly([base, row(1, "after", ("a",))])
    assert not learns_jointly([base, row(1, "after"), row(2, "after")])


def test_rows_survive_the_file_and_old_ones_are_read(tmp_path: Path) -> None:
    rows = [row(0, "base"), row(2, "after", ("a", "b"), "b")]
    write_rows(tmp_path, rows, "identity")
    assert read_rows(tmp_path) == rows
    old = [{key: value for key, value in asdict(each).items() if key != "learned"} for each in rows]
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "identity": "identity", "milestones": old}))
    assert read_rows(tmp_path) == [replace(each, learned=()) for each in rows]
