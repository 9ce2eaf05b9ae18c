"""The part on tracking: its table and ratios, and that a journal of many points is one that `sync` reads."""

import shutil
from pathlib import Path

import pytest

from benchmarks import document, tracking_alone
from benchmarks.tracking import ratios, tracking_table
from foundation.files import write_json_atomic
from pipeline.config.experiment import EXPERIMENT_FILE, build
from pipeline.graph.history import read_history
from pipeline.step import Outcome
from pipeline.store import Store
from pipeline.tracking.writing.journal import Kind, journal_file, read_events


def runs(*seconds: float, end: float = 2.0) -> list[dict[str, float]]:
    return [{"stage": each, "end": end} for each in seconds]


DATA = {
    "stages": {"none": runs(10.0, 20.0, 30.0, end=0.0), "sqlite": runs(11.0, 20.0, 30.3), "server": runs(10.0, 22.0, 60.0)},
    "replay": {kind: {"with": [6.0, 8.0, 7.0], "without": [5.0, 5.0, 5.0]} for kind in ("sqlite", "server")},
    "points": 10_000,
}


def test_each_round_is_compared_with_itself(tmp_path: Path) -> None:
    assert ratios(DATA["stages"], "sqlite") == pytest.approx([1.1, 1.0, 1.01])  # type: ignore[arg-type]
    lines = "\n".join(tracking_table(DATA))
    assert "| nothing tracked, machine not looked at | 20.00 (10.00–30.00) |  | 0.0 |" in lines
    assert "| an SQLite file | 20.00 (11.00–30.30) | **1.010×** (1.000–1.100) | 2.0 |" in lines
    assert "| to a server on loopback | 7.00 (6.00–8.00) | 5.00 (5.00–5.00) |" in lines
    document.keep(tmp_path, "50m", "tracking", DATA)
    assert document.sections(document.load(tmp_path, "50m"), "50m")["bench tracking"][0] == "### Tracking"


def test_the_journal_holds_as_many_points_as_it_says(tmp_path: Path) -> None:
    """The finished run that is copied is made of records alone here: nothing is trained."""
    built = tracking_alone.built_in(tmp_path, tracking_alone.FIRST)
    store = Store(built.workspace / "store")
    for step in built.steps:
        directory = store.begin(step)
        write_json_atomic(directory / "made.json", {})
        store.finish(step, Outcome(), {"started": 1.0, "finished": 2.0, "seconds": 1.0, "versions": {}})
    told = tracking_alone.journal(tmp_path, 40, "another")
    run = Path(told["workspace"]) / "runs" / told["name"]
    again = build(run / EXPERIMENT_FILE, [])
    events = [event for event, _ in read_events(journal_file(run))]
    assert again.identity == built.identity == events[0].identity
    assert sum(len(event.values) for event in events if event.kind is Kind.POINT) == 40
    assert [event.kind for event in events if event.kind is not Kind.POINT] == [Kind.OPENED, *[Kind.DONE] * len(built.steps), Kind.CLOSED]
    tune = next(step for step in built.steps if step.kind == "finetune")
    points = list(read_history(Path(told["workspace"]) / "store" / tune.key / "history.jsonl"))
    assert [point.time for point in points] == [event.time for event in events if event.kind is Kind.POINT]
    shutil.rmtree(told["workspace"])


def test_a_stage_begins_with_the_base_alone(tmp_path: Path) -> None:
    built = tracking_alone.built_in(tmp_path, tracking_alone.FIRST)
    store = Store(built.workspace / "store")
    for step in built.steps:
        store.begin(step)
        store.finish(step, Outcome(), {})
    copied = tracking_alone.with_base(tmp_path, "turn", "tracking.usage=0")
    kinds = sorted(path.parent.name.split("-")[0] for path in copied.workspace.glob("store/*/record.json"))
    assert kinds == ["evaluate", "pretrain"]
    assert copied.config.tracking.usage == 0
