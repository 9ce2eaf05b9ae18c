"""Two models held against each other: figures by hand, what is paired and what is not, seeds, tasks that one side alone has."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from evaluators.scores import Sample, task_score, write_samples
from evaluators.statistics import mean_interval, paired
from foundation.errors import InputError
from pipeline.report.compare.models import Compare, Line, LineOf, hold_against, measures, side
from pipeline.report.compare.tables import brief_grid, heading, rows_grid, tasks_grid
from pipeline.report.comparison import Estimate
from pipeline.report.paired import paired_scores
from pipeline.report.run_scores import AFTER, BASE, BEFORE, RunScores, StageScores

EXACT = 1e-12  # a few float64 roundings
HALF = "0.5 x previous + 0.5 x tuned"
BASE_ANSWERS = {"h": [1] * 8, "a": [0] * 8, "b": [0, 0, 0, 1]}
TUNED = {"h": [0, 0, 0, 0, 1, 1, 1, 0], "a": [1] * 8, "b": [0, 0, 0, 1]}
MERGED = {"h": [1, 1, 1, 1, 0, 1, 1, 0], "a": [1, 1, 1, 1, 1, 1, 0, 0], "b": [1, 0, 0.5, 1]}
Answers = dict[str, list[float]]


def model(place: Path, answers: Answers, stage: int, role: str, task: str | None = None, question: str = "q") -> StageScores:
    rows = [
        Sample(name, str(index), question, "yes", "yes", float(score)) for name, own in answers.items() for index, score in enumerate(own)
    ]
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{stage}{role}.parquet"
    write_samples(rows, path)
    return StageScores(stage, task, role, {name: task_score([float(each) for each in own]) for name, own in answers.items()}, path)


def run(place: Path, seed: int = 0, merged: Answers = MERGED, question: str = "q", held_out: tuple[str, ...] = ("h",)) -> RunScores:
    """A run of one stage of two."""
    stages = (
        model(place, BASE_ANSWERS, 0, BASE, question=question),
        model(place, TUNED, 1, BEFORE, "a", question),
        model(place, merged, 1, AFTER, "a", question),
    )
    return RunScores("wise", seed, ("a", "b"), held_out, HALF, stages, "mlp")


def merge(runs: list[RunScores]) -> Compare:
    sides = [side("base", BASE, 0, runs, runs), side("wise", BEFORE, 1, runs, runs), side("wise", AFTER, 1, runs, runs)]
    return hold_against(sides[1], sides[2], sides[0])


def by_name(found: Compare) -> dict[str, Line]:
    return {line.name: line for line in found.lines}


def test_a_merge_is_compared_sample_by_sample_with_the_same_figures_as_the_report(tmp_path: Path) -> None:
    whole = run(tmp_path)
    found = by_name(merge([whole]))
    assert list(found) == ["h", "a", "b", "held-out mean", "stream mean", "average"]
    expected = {line.name: line for line in (*paired_scores([whole]).merges[0].tasks, *paired_scores([whole]).merges[0].means)}
    for name, line in found.items():
        theirs = expected[name].found
        assert (line.low, line.high, line.p) == (theirs.low, theirs.high, theirs.p)
        assert line.difference == pytest.approx(theirs.difference, abs=EXACT)
        assert line.paired
    assert (found["h"].base, found["h"].first, found["h"].second) == (1.0, 0.375, 0.75)
    assert found["h"].p == paired(TUNED["h"], MERGED["h"]).p == 0.375  # 4 won, 1 lost: 2 · (1 + 5) / 2⁵
    assert found["average"].difference == pytest.approx((0.375 - 0.25 + 0.375) / 3, abs=EXACT)


def test_measures_are_those_of_either_role_and_their_difference(tmp_path: Path) -> None:
    found = merge([run(tmp_path)])
    before, after, difference = measures(found.first, found.second)["learning/own"]
    assert (before, after, difference) == (Estimate(1.0, None, 1), Estimate(0.75, None, 1), Estimate(-0.25, None, 1))
    assert "forgetting/stream" not in measures(found.first, found.second)  # not defined before the second stage


def test_the_same_keys_of_other_questions_are_not_the_same_samples(tmp_path: Path) -> None:
    one, other = run(tmp_path / "1"), run(tmp_path / "2", question="asked otherwise")
    found = hold_against(side("A", AFTER, 1, [one], [one]), side("B", AFTER, 1, [other], [other]))
    line = by_name(found)["a"]
    assert not line.paired
    assert line.p is None
    half = 1.959964 * math.sqrt(2) * task_score(MERGED["a"]).stderr
    assert (line.low, line.high) == (pytest.approx(-half, abs=EXACT), pytest.approx(half, abs=EXACT))
    assert "not the same samples" in found.notes[0]
    assert found.notes[0].endswith("h, a, b")
    assert tasks_grid(found).rows[0][-2] == "unpaired"


def test_answers_that_are_gone_leave_an_unpaired_interval_and_a_note(tmp_path: Path) -> None:
    whole = run(tmp_path)
    stages = tuple(replace(entry, samples=None) for entry in whole.stages)
    found = merge([replace(whole, stages=stages)])
    assert not any(line.paired for line in found.lines)
    assert "the answers of a model are gone" in found.notes[0]


def test_a_file_of_answers_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    whole = run(tmp_path)
    assert whole.stages[1].samples is not None
    whole.stages[1].samples.write_bytes(b"torn")
    with pytest.raises(InputError, match=r"1before\.parquet cannot be read as answers"):
        merge([whole])


def test_tasks_of_one_side_alone_are_listed_and_in_no_mean(tmp_path: Path) -> None:
    one, other = run(tmp_path / "1"), run(tmp_path / "2")
    less = RunScores("wise", 0, ("a",), ("h",), HALF, (other.stages[0], other.stages[2]), "mlp")
    found = hold_against(side("A", AFTER, 1, [one], [one]), side("B", AFTER, 1, [less], [less]))
    assert found.apart == (("b",), ())
    assert by_name(found)["average"].second == pytest.approx((0.75 + 0.75) / 2, abs=EXACT)
    assert "asked of A alone, in no mean: b" in tasks_grid(found).note
    turned = hold_against(side("B", AFTER, 1, [less], [less]), side("A", AFTER, 1, [one], [one]))
    assert turned.apart == ((), ("b",))


def test_of_several_seeds_the_interval_is_students_and_those_of_one_side_are_left_out(tmp_path: Path) -> None:
    flat = {**MERGED, "a": [1] * 8}
    runs = [run(tmp_path / "0"), run(tmp_path / "1", 1, flat)]
    line = by_name(merge(runs))["a"]
    expected = mean_interval([-0.25, 0.0])
    assert line.seeds.half_width is not None
    assert line.difference - line.seeds.half_width == pytest.approx(expected.low, abs=EXACT)
    assert line.difference == pytest.approx(-0.125, abs=EXACT)
    assert not line.beyond  # the samples tell it apart, two seeds do not
    found = hold_against(side("A", AFTER, 1, runs[:1], runs), side("B", AFTER, 1, runs, runs))
    assert [each.seed for each in found.second.runs] == [0]
    assert found.notes == ("left out, as one side alone has them: seeds 1",)
    assert by_name(found)["a"].difference == 0


def test_seeds_that_differ_are_said_and_compared_where_there_is_one_of_each(tmp_path: Path) -> None:
    one, other = run(tmp_path / "0"), run(tmp_path / "1", 1)
    found = hold_against(side("A", AFTER, 1, [one], [one]), side("B", AFTER, 1, [other], [other]))
    assert found.notes == ("seeds differ: 0 and 1",)
    assert by_name(found)["a"].p == 1.0
    third = run(tmp_path / "2", 2)
    unshared = hold_against(side("A", AFTER, 1, [one], [one]), side("B", AFTER, 1, [other, third], [other, third]))
    assert "no seed is shared" in unshared.notes[0]
    assert by_name(unshared)["a"].low is None


@pytest.mark.parametrize(
    ("low", "high", "half", "beyond"),
    [(0.1, 0.2, None, True), (-0.2, -0.1, None, True), (-0.1, 0.2, None, False), (0.0, 0.2, None, False), (0.1, 0.2, 0.2, False),
     (0.1, 0.2, 0.1, True), (None, None, None, False)],
)  # fmt: skip
def test_a_difference_counts_where_every_interval_lies_on_one_side(low: float, high: float, half: float | None, beyond: bool) -> None:
    class Told(Estimate):
        @property
        def half_width(self) -> float | None:
            return half

    assert Line("a", LineOf.TASK, None, 0.5, 0.65, Told(0.15, None, 1), 8, True, low, high).beyond is beyond


def test_the_tables_of_many_pairs_hold_a_row_for_each_mean(tmp_path: Path) -> None:
    one = run(tmp_path)
    first = side("A", AFTER, 1, [one], [one])
    pairs = [hold_against(first, side(name, AFTER, 1, [one], [one])) for name in "BCDE"]
    grid = brief_grid(pairs)
    assert [row[0] for row in grid.rows] == ["B", "", "", "C", "", "", "D", "", "", "E", "", ""]
    assert [row[0] for row in rows_grid(pairs).rows] == list("ABCDE")
    assert heading(pairs[0]) == "A → B, after stage 1 of 2"


def test_without_held_out_tasks_the_mean_is_that_of_the_stream(tmp_path: Path) -> None:
    whole = run(tmp_path, held_out=())
    assert list(by_name(merge([whole]))) == ["a", "b", "stream mean"]
