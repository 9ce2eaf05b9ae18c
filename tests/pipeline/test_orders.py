"""Arms whose tasks are learned in several orders: grouped by name, their figures over the orders by hand, tables and CSV."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from evaluators.scores import TaskScore
from pipeline.report import print_tables, write_report
from pipeline.report.comparison import arms_of, paired_differences
from pipeline.report.orders import order_difference_grid, order_differences, order_of, orders_grid, orders_of, spread
from pipeline.report.run_scores import RunScores, StageScores

EXACT = 1e-12  # a few float64 roundings
BASE = {"h": 0.9, "a": 0.2, "b": 0.1}


def scores(**accuracies: float) -> dict[str, TaskScore]:
    return {task: TaskScore(value, 0.03, 100) for task, value in accuracies.items()}


def run(arm: str, stream: tuple[str, ...], last: dict[str, float], seed: int = 0, training: str = "mlp") -> RunScores:
    """Held-out h; after the first stage every score is one half."""
    stages = (
        StageScores(0, None, "base", scores(**BASE)),
        StageScores(1, stream[0], "after", scores(h=0.5, a=0.5, b=0.5)),
        StageScores(2, stream[1], "after", scores(**last)),
    )
    return RunScores(arm, seed, stream, ("h",), "", stages, training)


@pytest.fixture
def runs() -> list[RunScores]:
    there, back = ("a", "b"), ("b", "a")
    return [
        run("plain [there]", there, {"h": 0.3, "a": 0.3, "b": 0.9}),
        run("plain [back]", back, {"h": 0.5, "a": 0.9, "b": 0.1}),
        run("wise [there]", there, {"h": 0.8, "a": 0.6, "b": 0.7}),
        run("wise [back]", back, {"h": 0.8, "a": 0.7, "b": 0.6}),
    ]


def test_the_order_in_a_name() -> None:
    assert order_of("wise_ft [reversed]") == ("wise_ft", "reversed")
    assert order_of("my run wise [a] [b c]") == ("my run wise [a]", "b c")
    assert [order_of(name) for name in ("wise", "[x]", "wise[x]", "wise []")] == [(n, "") for n in ("wise", "[x]", "wise[x]", "wise []")]


def test_a_spread_by_hand() -> None:
    """0.6, 0.8, 1.0: mean 0.8, deviation 0.2, interval ± t(2) · 0.2/√3."""
    found = spread({"one": 0.6, "two": 1.0, "three": 0.8})
    assert (found.mean, found.deviation) == pytest.approx((0.8, 0.2), abs=EXACT)
    assert (found.lowest, found.highest) == ("one", "two")
    assert found.interval.high == pytest.approx(0.8 + 4.302653 * 0.2 / 3**0.5, abs=1e-6)


def test_figures_over_orders_by_hand(runs: list[RunScores]) -> None:
    plain, wise = orders_of(arms_of(runs))
    assert (plain.name, list(plain.arms), wise.name) == ("plain", ["there", "back"], "wise")
    assert plain.figures["acc/average"].values == pytest.approx({"there": 0.5, "back": 0.5})
    assert plain.figures["acc/h"].mean == pytest.approx(0.4, abs=EXACT)
    assert plain.figures["acc/h"].deviation == pytest.approx(0.1 * 2**0.5, abs=EXACT)
    # the earlier task: a from one half to 0.3, b from one half to 0.1
    assert plain.figures["forgetting/stream"].values == pytest.approx({"there": 0.2, "back": 0.4})
    (pair,) = order_differences([plain, wise])
    assert (pair.first, pair.second) == ("plain", "wise")
    assert pair.figures["acc/held_out"].values == pytest.approx({"there": 0.5, "back": 0.3})


def test_seeds_are_averaged_within_an_order(runs: list[RunScores]) -> None:
    more = [*runs, run("wise [there]", ("a", "b"), {"h": 0.6, "a": 0.6, "b": 0.7}, seed=1)]
    (_, wise) = orders_of(arms_of(more))
    assert wise.figures["acc/h"].values == pytest.approx({"there": 0.7, "back": 0.8})


def test_arms_that_differ_in_more_than_the_order_are_not_grouped(runs: list[RunScores]) -> None:
    assert not orders_of(arms_of([runs[0], replace(runs[1], training="all")]))
    assert not orders_of(arms_of([runs[0], replace(runs[1], weights="0.5 x previous + 0.5 x tuned")]))
    assert not orders_of(arms_of([runs[0], replace(runs[2], arm="other [back]")]))
    assert not orders_of(arms_of([replace(each, arm=each.arm.replace(" [", "-")) for each in runs]))
    assert orders_grid([]) is order_difference_grid([]) is None


def test_each_order_has_its_own_differences(runs: list[RunScores]) -> None:
    pairs = [(pair.first, pair.second) for pair in paired_differences(arms_of(runs))]
    assert pairs == [("plain [there]", "wise [there]"), ("plain [back]", "wise [back]")]


def test_tables_and_files(runs: list[RunScores], tmp_path: Path) -> None:
    names = {path.name for path in write_report(runs, tmp_path, "Orders")}
    assert {"orders.csv", "matrix_after_plain-there_seed0.csv", "heatmap_wise-back.png"} <= names
    rows = [row for row in csv.DictReader(io.StringIO((tmp_path / "orders.csv").read_text())) if row["metric"] == "acc/h"]
    assert [(row["arm"], row["order"], row["count"]) for row in rows[:3]] == [
        ("plain", "there", "1"),
        ("plain", "back", "1"),
        ("plain", "", "2"),
    ]
    assert [float(row["mean"]) for row in rows[:3]] == pytest.approx([0.3, 0.5, 0.4])
    assert (rows[0]["stderr"], float(rows[2]["stderr"])) == ("", pytest.approx(0.1))
    page = (tmp_path / "report.md").read_text()
    assert "| held-out accuracy | 40.0 ± 14.1 (30.0 to 50.0) | 80.0 ± 0.0 (80.0 to 80.0) |" in page
    assert "plain [back]: b, a" in page
    console = Console(width=100, file=io.StringIO(), color_system=None)
    print_tables(runs, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "+40.0 ± 14.1 (+30.0 to +50.0)" in text
    assert max(map(len, text.splitlines())) <= 100
