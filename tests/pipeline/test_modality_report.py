"""The tables, pictures and files of a modality-merging experiment, from outcomes made by hand."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from modality_outcomes import EXACT, SET, SOME, cells, experiment, outcome
from PIL import Image
from rich.console import Console

from evaluators.scores import TaskScore
from foundation.errors import InputError
from pipeline.report.modality import RECALLS, Outcome, When, parts_of, settings_of
from pipeline.report.modality_plots import limits_of, panels_of, spaced
from pipeline.report.modality_tables import distance_grid, grids_of, print_modality, scores_grid, spread_grid
from pipeline.report.modality_write import write_modality_report


def rows_in(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_scores_table() -> None:
    grid = scores_grid(settings_of(experiment()), SET)
    assert grid.columns == ("arm", *RECALLS, "mean", "tuned")
    shown = cells(grid)
    assert shown["unmerged"]["TR@1"] == "52.0 ± 1.2"
    assert (shown["regmean 1"]["mean"], shown["regmean 1"]["tuned"]) == ("68.0 ± 2.3", "73.0 ± 1.2")
    assert shown["unmerged, step 25"]["tuned"] == "–"


def test_a_score_over_fewer_seeds_says_so() -> None:
    found = [replace(each, tuned=None) if (each.arm, each.seed) == ("ties", 2) else each for each in experiment()]
    assert cells(scores_grid(settings_of(found), SET))["ties"]["tuned"] == "73.0 ± 1.0 (2)"


def test_a_set_asked_after_fine_tuning_alone() -> None:
    found = [replace(each, merged={}) for each in experiment() if each.tuned]
    settings = settings_of(found)
    grid = scores_grid(settings, SET)
    assert grid.columns == ("arm", *RECALLS, "mean")
    assert cells(grid)["unmerged"]["mean"] == "76.0 ± 1.2"
    assert [row[0] for row in spread_grid(settings, SET).rows] == ["tuned"]  # type: ignore[union-attr]


def test_distances_have_the_decimals_of_their_column() -> None:
    distances = [{"l2": 12.34, "ssd": None}, {"l2": 0.5}, {}]
    found = [outcome(arm, 0, 0.5, distances=held) for arm, held in zip(("ties", "slerp", "dare"), distances, strict=True)]
    grid = distance_grid(settings_of(found), SET)
    assert grid is not None
    shown = cells(grid)
    assert (shown["ties"]["L2"], shown["slerp"]["L2"]) == ("12.3", "0.5")
    assert (shown["ties"]["SSD"], shown["slerp"]["SSD"]) == ("undefined", "–")
    assert "dare" not in shown


@pytest.mark.parametrize("width", [80, 200])
def test_the_terminal_shows_scores_and_differences(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    print_modality(experiment(), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for grid in grids_of(settings_of(experiment()), SET)[:3]:
        for row in grid.rows:
            assert all(cell in text for cell in row)


def test_panels_by_axis() -> None:
    panels = panels_of(settings_of(experiment()))
    assert [panel.title for panel in panels] == ["Interpolation", "RegMean", "Experts on the way", "Other merges"]
    assert [setting.value for setting in panels[0].arms] == [0.25, 0.5, 0.75]
    assert list(panels[2].families) == ["unmerged on the way", "interpolation on the way"]
    assert panels_of(settings_of([outcome("agnostic", 0, 0.5)])) == []


def test_a_single_value_joins_the_axis_of_its_like() -> None:
    arms = ("arithmetic 0.25", "arithmetic 0.5", "sequential arithmetic 0.75", "ties 0.2")
    panels = panels_of(settings_of([outcome(arm, 0, 0.5) for arm in arms]))
    assert [(panel.title, [setting.arm for setting in panel.arms]) for panel in panels] == [
        ("Modality arithmetic", list(arms[:3])),
        ("Other merges", ["ties 0.2"]),
    ]


def test_labels_that_would_touch_are_left_out() -> None:
    assert spaced([0.0, 0.5, 0.9, 0.95, 1.0]) == ["0", "0.5", "0.9", "", "1"]
    assert spaced([3.0]) == ["3"]


def test_rows_have_room_for_their_marks() -> None:
    settings = settings_of(experiment())
    (low, high), (lowest, highest) = limits_of(settings, SET, list(When))
    assert low < 50
    assert high > 74
    assert highest - lowest >= (high - low) / 2 - EXACT


def test_report_files(tmp_path: Path) -> None:
    files = write_modality_report(experiment(), tmp_path, "Merges", ["Asked on the test split."])
    names = ["outcomes.csv", "figures.csv", "differences.csv", "distances.csv", "correlations.csv", "merges.png", "distances.png"]
    assert [path.name for path in files] == [*names, "report.md"]
    text = files[-1].read_text()
    assert text.startswith("# Merges\n\nAsked on the test split.\n")
    assert "after 60 steps of fine-tuning" in text
    assert "± 4.3" in text
    assert all(f"({name})" in text for name in ("merges.png", "distances.png"))
    for name in ("merges.png", "distances.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width >= 800
            assert not image.info.get("Software")


def test_report_is_the_same_bytes_again(tmp_path: Path) -> None:
    first = write_modality_report(experiment((0, 1)), tmp_path / "a", "Merges")
    again = write_modality_report(experiment((0, 1)), tmp_path / "b", "Merges")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_csv_files_hold_the_figures(tmp_path: Path) -> None:
    write_modality_report(experiment(), tmp_path, "Merges")
    assert len(rows_in(tmp_path / "outcomes.csv")) == 3 * 7 * (8 * 2 + 4)
    figures = {(row["arm"], row["model"], row["score"]): row for row in rows_in(tmp_path / "figures.csv")}
    assert float(figures["ties", "merged", SET]["mean"]) == pytest.approx(0.61, abs=EXACT)
    differences = {(row["arm"], row["reference"], row["model"], row["score"]): row for row in rows_in(tmp_path / "differences.csv")}
    assert float(differences["regmean 1", "interpolation 0.5", "merged", SET]["mean"]) == pytest.approx(0.06, abs=EXACT)
    assert ("interpolation 0.5, step 25", "unmerged, step 25", "merged", SET) in differences
    assert not any(arm == reference for arm, reference, _, _ in differences)
    found = {(row["merges"], row["metric"], row["target"], row["seed"]): row for row in rows_in(tmp_path / "correlations.csv")}
    assert found["interpolation 0.5", "l2", "lost by merging", "1"]["rho"] == "1.0"
    assert found["interpolation 0.5", "l2", "tuned", "1"]["rho"] == ""


def test_a_run_without_merges_or_distances(tmp_path: Path) -> None:
    files = write_modality_report([outcome("agnostic", 0, 0.5)], tmp_path, "Agnostic")
    assert [path.name for path in files] == ["outcomes.csv", "figures.csv", "differences.csv", "report.md"]
    assert "tuned" not in files[-1].read_text()


def test_recalls_are_explained_where_there_are_some(tmp_path: Path) -> None:
    questions = Outcome("model", "model", None, 0, {"questions": TaskScore(0.4, 0.01, 50)}, None, {})
    for outcomes, told in (([outcome("agnostic", 0, 0.5)], True), ([questions], False)):
        assert ("*TR@k*" in write_modality_report(outcomes, tmp_path, "Told")[-1].read_text()) is told


def test_two_sets_have_pictures_of_their_own(tmp_path: Path) -> None:
    found = [replace(each, merged={**each.merged, "questions": TaskScore(0.4, 0.01, 50)}) for each in experiment((0,))]
    names = [path.name for path in write_modality_report(found, tmp_path, "Two") if path.suffix == ".png"]
    assert names == ["captions_merges.png", "captions_distances.png", "questions_merges.png"]  # questions: all scores are the same
    assert parts_of(settings_of(found), "questions") == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda found: [], "no outcomes"),
        (lambda found: [*found, found[0]], "holds seeds [0, 0, 1, 2]"),
        (lambda found: [replace(found[0], family="ties"), *found[1:]], "differ in family, value or steps"),
        (lambda found: [replace(found[0], steps=10), *found[1:]], "differ in family, value or steps"),
        (lambda found: [replace(found[0], distances={"l2": math.nan}), *found[1:]], "distance l2 is not a finite number"),
        (
            lambda found: [found[0], replace(found[1], merged={SET: SOME}), *found[2:]],
            "lacks the score of 'captions/IR@1'",
        ),
        (lambda found: [replace(each, merged={"a/b": SOME}, tuned=None) for each in found], "lacks the score of 'a'"),
        (lambda found: [replace(each, merged={}, tuned=None) for each in found], "has a score"),
    ],
)
def test_what_cannot_be_reported_is_refused(spoil, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        write_modality_report(spoil(experiment()), tmp_path / "report", "Merges")
    assert words in str(caught.value)
    assert not (tmp_path / "report").exists()
