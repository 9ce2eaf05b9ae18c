"""Paired comparisons of runs: from answers in files to the figures by hand, their CSV and their tables; and what is not compared."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from evaluators.scores import Sample, TaskScore, task_score, write_samples
from evaluators.statistics import holm, mcnemar
from foundation.errors import InputError
from pipeline.report import print_tables, write_report
from pipeline.report.paired import AVERAGE, HELD_OUT_MEAN, STREAM_MEAN, Kind, paired_scores
from pipeline.report.paired_tables import p_text, paired_grids
from pipeline.report.run_scores import RunScores, StageScores
from pipeline.report.tables import Grid, markdown, print_grids

EXACT = 1e-12  # a few float64 roundings
HALF = "0.5 x previous + 0.5 x tuned"
TASKS = ("h", "a", "b")
# A model's scores on each task's samples: h 8, a 8, b 4.
BASE = {"h": [1] * 8, "a": [0] * 8, "b": [0, 0, 0, 1]}
TUNED = {"h": [0, 0, 0, 0, 1, 1, 1, 0], "a": [1] * 8, "b": [0, 0, 0, 1]}
MERGED = {"h": [1, 1, 1, 1, 0, 1, 1, 0], "a": [1, 1, 1, 1, 1, 1, 0, 0], "b": [1, 0, 0.5, 1]}
LAST = {"h": [1] * 8, "a": [0] * 8, "b": [1, 1, 1, 1]}


def model(place: Path, answers: dict[str, list[float]], stage: int, role: str, task: str | None = None) -> StageScores:
    """An evaluated model with its answers in a file; keys are numbers from the last to the first, tasks in their order."""
    rows = [
        Sample(name, str(len(own) - index), "q", "yes", "yes", float(score))
        for name, own in answers.items()
        for index, score in enumerate(own)
    ]
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{stage}{role}.parquet"
    write_samples(rows, path)
    return StageScores(stage, task, role, {name: task_score([float(each) for each in own]) for name, own in answers.items()}, path)


def run(place: Path, arm: str = "wise", seed: int = 0, merged: dict[str, list[float]] = MERGED, training: str = "mlp") -> RunScores:
    stages = (
        model(place, BASE, 0, "base"),
        model(place, TUNED, 1, "before", "a"),
        model(place, merged, 1, "after", "a"),
        model(place, LAST, 2, "before", "b"),
        model(place, LAST, 2, "after", "b"),
    )
    return RunScores(arm, seed, ("a", "b"), ("h",), HALF, stages, training)


def plain(place: Path, seed: int = 0, last: dict[str, list[float]] = TUNED, training: str = "mlp") -> RunScores:
    stages = (model(place, BASE, 0, "base"), model(place, TUNED, 1, "after", "a"), model(place, last, 2, "after", "b"))
    return RunScores("plain", seed, ("a", "b"), ("h",), "", stages, training)


def text_of(runs: list[RunScores], width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    print_tables(runs, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_before_and_after_a_merge_by_hand(tmp_path: Path) -> None:
    first, second = paired_scores([run(tmp_path)]).merges
    assert (first.kind, first.arm, first.first, first.second, first.seeds) == (Kind.MERGE, "wise", "before", "after", (0,))
    assert (first.stage, first.trained, second.stage, second.trained) == (1, "a", 2, "b")
    assert [each.name for each in first.tasks] == ["h", "a", "b"]
    assert [each.name for each in first.means] == [HELD_OUT_MEAN, STREAM_MEAN, AVERAGE]
    held = first.of["h"].found
    assert (held.won, held.lost, held.difference) == (4, 1, 3 / 8)
    assert held.p == pytest.approx(0.375, abs=EXACT)
    learned = first.of["a"].found
    assert (learned.won, learned.lost, learned.difference, learned.p) == (0, 2, -2 / 8, pytest.approx(0.5, abs=EXACT))
    graded = first.of["b"].found
    assert (graded.before, graded.after, graded.won) == (0.25, 0.625, 2)
    assert graded.p == pytest.approx(0.5, abs=EXACT)  # of the four patterns of ±1 ±0.5, two reach 1.5
    average = first.of[AVERAGE].found
    assert (average.difference, average.samples) == (pytest.approx((3 / 8 - 2 / 8 + 3 / 8) / 3, abs=EXACT), 20)
    assert first.of[STREAM_MEAN].found.difference == pytest.approx((-2 / 8 + 3 / 8) / 2, abs=EXACT)
    assert all(each.found.p == each.found.difference + 1 == 1 for each in second.tasks)


def test_holm_is_over_all_stages_of_an_arm(tmp_path: Path) -> None:
    merges = paired_scores([run(tmp_path)]).merges
    for members in ("tasks", "means"):
        found = [each for contrast in merges for each in getattr(contrast, members)]
        assert [each.adjusted for each in found] == holm([each.found.p for each in found])
    assert merges[0].of["h"].adjusted == 1.0  # 6 · 0.375


def test_answers_are_paired_by_key_and_not_by_place(tmp_path: Path) -> None:
    merged = run(tmp_path)
    rows = [
        Sample(name, str(len(own) - index), "q", "yes", "yes", float(score))
        for name, own in MERGED.items()
        for index, score in enumerate(own)
    ]
    write_samples(sorted(rows, key=lambda row: (row.task, row.key)), tmp_path / "1after.parquet")
    assert paired_scores([merged]) == paired_scores([run(tmp_path / "again")])


def test_several_seeds_one_by_one_and_together(tmp_path: Path) -> None:
    """Together: the mean of each question's scores over the seeds; seed 1's merge answers like the tuned model."""
    runs = [run(tmp_path / "0"), run(tmp_path / "1", seed=1, merged=TUNED)]
    found = paired_scores(runs)
    stage = [contrast for contrast in found.merges if contrast.stage == 1]
    assert [contrast.seeds for contrast in stage] == [(0,), (1,), (0, 1)]
    assert stage[1].of["h"].found.difference == 0
    together = stage[2].of["h"].found
    assert (together.samples, together.won, together.lost, together.difference) == (8, 4, 1, 3 / 16)
    assert together.p == pytest.approx(0.375, abs=EXACT)  # five halves: the binomial tail again, by flipped signs
    assert [contrast.seeds for contrast in found.together(Kind.MERGE)] == [(0, 1), (0, 1)]


def test_last_models_of_two_arms(tmp_path: Path) -> None:
    runs = [plain(tmp_path / "p"), run(tmp_path / "w")]
    (contrast,) = paired_scores(runs).arms
    assert (contrast.first, contrast.second, contrast.arm, contrast.stage) == ("plain", "wise", "", 2)
    assert contrast.of["a"].found.difference == -1
    assert contrast.of["a"].found.p == pytest.approx(mcnemar(0, 8), abs=EXACT)
    assert contrast.of["b"].found.difference == 0.75
    (other,) = paired_scores([plain(tmp_path / "p", training="all"), run(tmp_path / "w")]).arms
    assert other.of == contrast.of  # another training is compared as well
    assert not paired_scores([plain(tmp_path / "p", seed=3), run(tmp_path / "w")]).arms


def test_of_many_arms_those_with_equal_training_come_first(tmp_path: Path) -> None:
    runs = [replace(plain(tmp_path / name), arm=name, training=name[-1]) for name in ("plain 1", "wise 1", "plain 2", "wise 2")]
    pairs = [(contrast.first, contrast.second) for contrast in paired_scores(runs).arms]
    assert pairs == [("plain 1", "wise 1"), ("plain 2", "wise 2"), ("plain 1", "plain 2"), ("plain 1", "wise 2")]


def test_a_score_by_groups_is_compared_by_groups(tmp_path: Path) -> None:
    """Group x has 1 sample, y 3, and each counts half: 1/2 (1 − 0) + 1/2 (1/3 − 0). In the average the task counts as much as h."""
    entries = []
    for stage, role, own, score in ((0, "base", [0] * 4, 0.0), (1, "before", [0] * 4, 0.0), (1, "after", [1, 1, 0, 0], 2 / 3)):
        path = tmp_path / f"{role}.parquet"
        rows = [Sample("a", str(place), "q", "yes", "no", float(each), group="xyyy"[place]) for place, each in enumerate(own)]
        write_samples([*rows, *(Sample("h", str(place), "q", "yes", "no", 0.0) for place in range(2))], path)
        scores = {"h": TaskScore(0.0, 0.0, 2), "a": TaskScore(score, 0.1, 4)}
        entries.append(StageScores(stage, "a" if stage else None, role, scores, path))
    (contrast,) = paired_scores([RunScores("wise", 0, ("a",), ("h",), HALF, tuple(entries))]).merges
    found = contrast.of["a"].found
    assert (found.before, found.after, found.won) == (0, pytest.approx(2 / 3, abs=EXACT), 2)
    assert [each.name for each in contrast.means] == [HELD_OUT_MEAN, STREAM_MEAN, AVERAGE]
    assert contrast.of[STREAM_MEAN].found.difference == pytest.approx(2 / 3, abs=EXACT)
    assert contrast.of[AVERAGE].found.difference == pytest.approx(1 / 3, abs=EXACT)


def test_a_score_that_is_no_mean_and_one_without_samples_are_left_out(tmp_path: Path) -> None:
    made = run(tmp_path)
    scored = [replace(entry, scores={**entry.scores, "b": TaskScore(0.123, 0, 4), "corpus": TaskScore(0.5, 0, 1)}) for entry in made.stages]
    found = paired_scores([replace(made, held_out=("h", "corpus"), stages=tuple(scored))])
    assert [each.name for each in found.merges[0].tasks] == ["h", "a"]
    assert found.merges[0].unpaired == ("corpus", "b")
    (grid,) = paired_grids(found, Kind.MERGE)
    assert "left out, as their score is no mean over stored samples: corpus, b" in grid.note
    assert found.merges[0].of[AVERAGE].found.difference == pytest.approx((3 / 8 - 2 / 8) / 2, abs=EXACT)


def test_refuses_models_of_a_stage_that_were_asked_different_samples(tmp_path: Path) -> None:
    fewer = {**MERGED, "b": MERGED["b"][:3]}
    with pytest.raises(InputError, match=r"wise, seed 0, stage 1: .* asked different samples"):
        paired_scores([run(tmp_path, merged=fewer)])
    doubled = run(tmp_path / "doubled")
    write_samples([Sample("h", "1", "q", "yes", "yes", 1.0)] * 2, tmp_path / "doubled" / "1after.parquet")
    with pytest.raises(InputError, match="task 'h' has a key twice"):
        paired_scores([doubled])
    (tmp_path / "doubled" / "1after.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"1after.parquet cannot be read as answers"):
        paired_scores([doubled])


def test_says_which_arms_it_does_not_compare(tmp_path: Path) -> None:
    fewer = plain(tmp_path / "p", last={**TUNED, "h": TUNED["h"][:4]})
    found = paired_scores([fewer, run(tmp_path / "w")])
    assert not found.arms
    assert found.notes == ("not compared, as they were asked different samples: plain and wise, seed 0",)
    gone = run(tmp_path / "w")
    gone = replace(gone, stages=(*gone.stages[:4], replace(gone.stages[4], samples=None)))
    (note,) = paired_scores([gone]).notes
    assert note == "not compared, as answers are gone: wise, seed 0, stage 2"
    assert "answers are gone" in text_of([gone])


def test_csv_holds_every_comparison(tmp_path: Path) -> None:
    runs = [plain(tmp_path / "p"), run(tmp_path / "w")]
    files = write_report(runs, tmp_path / "report", "Arms")
    assert tmp_path / "report" / "paired.csv" in files
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report" / "paired.csv").read_text())))
    assert len(rows) == 3 * 6
    first = rows[0]
    assert [first[name] for name in ("kind", "arm", "first", "second", "seeds", "stage", "trained", "task", "samples", "won", "lost")] == [
        *("merge", "wise", "before", "after", "0", "1", "a", "h", "8", "4", "1"),
    ]
    assert float(first["second_score"]) - float(first["first_score"]) == float(first["difference"]) == 0.375
    assert float(first["low"]) <= 0.375 <= float(first["high"])
    assert rows[-1]["kind"] == "arms"
    page = (tmp_path / "report" / "report.md").read_text()
    assert "| 1 a | own task | 100.0 | 75.0 | -25.0 |" in page
    assert "| plain → wise | held-out mean | 37.5 | 100.0 | +62.5 |" in page
    again = write_report(runs, tmp_path / "again", "Arms", paired_scores(runs))
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]


@pytest.mark.parametrize("width", [100, 70, 40, 30])
def test_terminal_tables_fit_and_say_what_they_show(tmp_path: Path, width: int) -> None:
    one, two = text_of([run(tmp_path / "w")], width), text_of([plain(tmp_path / "p"), run(tmp_path / "w")], width)
    assert max(map(len, (one + two).splitlines())) <= width
    assert "before → after the merge" in " ".join(one.split())
    assert "plain → wise" in " ".join(two.split())
    assert "+37.5" in one
    assert "Holm p" in one
    assert "…" not in one + two


def test_seeds_of_one_arm_alone_show_their_merges(tmp_path: Path) -> None:
    text = text_of([run(tmp_path / "0"), run(tmp_path / "1", seed=1)])
    assert "wise, mean of seeds 0, 1: before → after the merge" in text


def test_markdown_of_a_table(tmp_path: Path) -> None:
    (grid,) = paired_grids(paired_scores([run(tmp_path)]), Kind.MERGE)
    assert "| stage | score of | before | after | difference | 95 % interval | p | Holm p |" in markdown(grid)
    assert [p_text(p) for p in (1.0, 0.0314, 0.0009)] == ["1.000", "0.031", "<0.001"]


def test_the_terminal_has_a_row_per_stage_and_per_pair_of_arms(tmp_path: Path) -> None:
    """All of a task's own rows are in the files; the result in a sentence stands last."""
    one = text_of([run(tmp_path / "w")])
    merges = one[one.index("before → after the merge") :]
    assert re.search(r"^1 a +-25\.0 \[-62\.5, 0\.0\] \S+ +\+37\.5 \[", merges, re.M)
    assert "wise: average accuracy" in one[-160:]
    arms = [plain(tmp_path / "p"), *(run(tmp_path / name, arm=name, training="mlp") for name in ("a", "b", "c"))]
    many = text_of(arms)
    rows = many[many.index("minus plain, last models on the same samples, seed 0") :].splitlines()
    assert [line.split()[0] for line in rows[4:7]] == ["a", "b", "c"]
    assert "every task: report.html, paired.csv" in many
    assert "paired differences between arms" not in many, "of many arms the files hold them"


def test_a_report_that_was_written_is_not_compared_again(tmp_path: Path) -> None:
    runs = [run(tmp_path / "w")]
    found = paired_scores(runs)
    for entry in runs[0].stages:
        assert entry.samples is not None
        entry.samples.unlink()
    console = Console(width=100, file=io.StringIO(), color_system=None)
    print_tables(runs, console, found)
    assert isinstance(console.file, io.StringIO)
    assert "+37.5 [" in console.file.getvalue()


def test_long_names_of_rows_go_on_in_the_next_line() -> None:
    name = "first at 0.5, second at 0.6; first at 0.7, second at 0.8"
    console = Console(width=50, file=io.StringIO(), color_system=None)
    print_grids([Grid("picks", ("stage", "picked", "value"), (("1", name, "95.8 ± 0.1"),), labels=2)], console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 50
    assert lines[0] == "picks", "one table, not one for each row"
    assert "95.8 ± 0.1" in console.file.getvalue()
    assert all(word in console.file.getvalue() for word in name.split())
