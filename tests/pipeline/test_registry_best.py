"""Which version of a registered model is the best: by scores on validation data that were measured in the same way, and by nothing else."""

import json
from pathlib import Path

import pytest
from mirrored import TINY

from pipeline.config.experiment import build
from pipeline.step import Outcome
from pipeline.steps import Search
from pipeline.store import Store
from pipeline.tracking.versions import ENDED_TAG, Score, Version, best_of, latest_of, scores_on_validation


def test_a_search_on_validation_counts_and_one_on_test_does_not(tmp_path: Path) -> None:
    built = build(TINY, [f"workspace={tmp_path}", "alpha={search: {points: 3, samples: 8}}"])
    milestone = next(each for each in built.milestones if each.search is not None)
    assert isinstance(milestone.search, Search)
    store = Store(tmp_path / "store")
    for split, expected in (("validation", [0.75]), ("test", [])):
        store.begin(milestone.search)
        told = {"split": split, "goal": "average", "weight": 0.5, "new": "parity", "samples": 8, "stream": ["parity"], "held_out": ["name"]}
        outcome = Outcome(metrics={"value": 0.75, "trials": 3}, details=told)
        store.finish(milestone.search, outcome, {"started": 0.0, "finished": 1.0, "seconds": 1.0, "versions": {}})
        assert [score.value for score in scores_on_validation(milestone, store)] == expected


def version(number: int, *scores: tuple[float, str, bool], ended: float = 0) -> Version:
    told = [vars(Score(value, basis, "told", asked)) for value, basis, asked in scores]
    tags = {"mergeline.validation": json.dumps(told)} if told else {}
    return Version(number, tags | ({ENDED_TAG: repr(ended)} if ended else {}))


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ([version(1), version(2, ended=5)], None),
        ([version(1, (0.9, "a", True)), version(2, (0.8, "a", True), ended=5)], 1),
        ([version(1, (0.9, "a", True)), version(2, (0.8, "b", True), ended=5)], 2),  # what was asked something else is not held against it
        ([version(1, (0.8, "a", True)), version(2, (0.8, "a", True), ended=5)], 1),  # ties go to the older
        ([version(1, (0.9, "a", True), (0.7, "s", False)), version(2, (0.8, "s", False), (0.6, "a", True), ended=5)], 1),
        ([version(1, (0.9, "a", True)), version(2, ended=5)], 1),  # the newest was not asked
    ],
)
def test_only_scores_of_one_kind_are_compared(found: list[Version], best: int | None) -> None:
    chosen, why = best_of(found)
    assert (chosen and chosen.number) == best
    assert best_of(found[::-1])[0] == chosen
    assert (f"version {best}, with" in why) == (best is not None)
    latest = latest_of(found)
    assert latest is not None or best == 1
    assert latest is None or latest.number == 2
