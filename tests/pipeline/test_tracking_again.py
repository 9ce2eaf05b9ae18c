"""The mirror written again: after an interruption, into a new database, beside live points. Nothing is ever doubled."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mirrored import START, TINY, Whole, complete, dump, make, open_mirror, points_of, write_record

from pipeline.config.experiment import build
from pipeline.graph.history import HistoryLog, read_history
from pipeline.step import Step
from pipeline.steps import FineTune
from pipeline.store import Store
from pipeline.tracking.mirror import Mirror
from pipeline.tracking.tracker import Tracker


def test_writing_it_again_changes_nothing(whole: Whole, tmp_path: Path) -> None:
    built, store, mirror, once = whole
    again = open_mirror(built, store, Path(shutil.copy(built.workspace / "mlflow.db", tmp_path / "mlflow.db")))
    complete(again)
    complete(again)
    assert dump(again) == once
    places = points_of(again)
    assert len(set(places)) == len(places) == len(points_of(mirror))


def test_a_new_database_is_filled_from_records_alone(whole: Whole, database: Path) -> None:
    built, store, _, once = whole
    fresh = build(TINY, [f"workspace={built.workspace}"])
    mirror = open_mirror(fresh, Store(store.root), database)
    complete(mirror)
    assert dump(mirror) == once


def test_measurements_and_models_within_a_stage_are_mirrored(tmp_path: Path, database: Path) -> None:
    built, store = make(tmp_path, TINY, "strategy=ewc", "train.milestones=[1, 2]")
    mirror = open_mirror(built, store, database)
    complete(mirror)
    told = dump(mirror)
    models = [key for key in told if key.startswith("model ")]
    assert len([key for key in models if "within-" in key]) == 2 * len(built.config.tasks)
    assert not [key for key in models if "fisher-" in key]  # a measurement is a run, not a model
    assert len([key for key in told if key.startswith("run ") and "fisher-" in key]) == len(built.config.tasks) - 1


class Crash(BaseException):
    """Not an Exception, so that nothing can swallow it."""


class Failing:
    """A client whose `at`-th writing call ends in a crash, after it was carried out."""

    def __init__(self, client: Any, at: int) -> None:
        self._client, self._left = client, at

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if not name.startswith(("create_", "log_", "set_", "update_", "finalize_")):
            return real

        def call(*arguments: Any, **keywords: Any) -> Any:
            result = real(*arguments, **keywords)
            self._left -= 1
            if self._left == 0:
                raise Crash
            return result

        return call


def test_interrupted_again_and_again_it_comes_to_the_same(whole: Whole, database: Path) -> None:
    """Every attempt is cut off a few calls further on; the steps of 7 calls hit different places in a step's writing."""
    built, store, _, once = whole
    crashes = 0
    for at in range(1, 400, 7):
        mirror = open_mirror(built, store, database)
        mirror.book.client = Failing(mirror.book.client, at)
        try:
            complete(mirror)
            break
        except Crash:
            crashes += 1
    assert crashes >= 5
    mirror = open_mirror(built, store, database)
    complete(mirror)
    assert dump(mirror) == once


def test_live_points_and_the_final_record_give_no_doubles(tmp_path: Path, database: Path, empty_database: Path) -> None:
    built, store = make(tmp_path / "ws")
    mirror = open_mirror(built, store, database)
    mirror.open(START)
    for step in built.steps:  # as in a run: points while the step works, then its record
        points = [*read_history(store.directory(step) / "history.jsonl")]
        with working(store, step):
            for point in points * 2:
                mirror.points(step.key, [point])
        mirror.step(step)
    complete(mirror)
    places = points_of(mirror)
    assert len(set(places)) == len(places)
    shutil.copy(empty_database, tmp_path / "records.db")
    from_records = open_mirror(built, store, tmp_path / "records.db")
    complete(from_records)
    assert sorted(map(str, points_with_values(mirror))) == sorted(map(str, points_with_values(from_records)))


@contextmanager
def working(store: Store, step: Step) -> Iterator[None]:
    """A stored step as it was while it worked: without its record."""
    record = store.directory(step) / "record.json"
    aside = record.rename(record.with_name("aside"))
    yield
    aside.rename(record)


def points_with_values(mirror: Mirror) -> Iterator[tuple[str, list[Any]]]:
    for key, (entry,) in dump(mirror).items():
        if isinstance(entry[0], list):
            yield key, entry[3]


def test_a_step_made_again_with_the_same_result_adds_no_points(tmp_path: Path, database: Path) -> None:
    built, store = make(tmp_path / "ws")
    complete(open_mirror(built, store, database))
    for step in built.steps[-4:]:
        shutil.rmtree(store.directory(step))
        write_record(store, step, START + 1000)
    mirror = open_mirror(built, store, database)
    complete(mirror)
    shown = [place for place in points_of(mirror) if not place[1].startswith(("train/", "time/"))]  # a removed history has new times
    assert len(set(shown)) == len(shown)


@pytest.mark.slow
def test_an_interrupted_run_leaves_no_empty_and_no_open_runs(tmp_path: Path, database: Path) -> None:
    built, store = make(tmp_path / "ws", TINY, f"tracking.uri=sqlite:///{database}", steps=4)
    tracker = Tracker(built, store)
    tracker.start()
    tune = next(step for step in built.steps[4:] if isinstance(step, FineTune))
    log = HistoryLog(store.begin(tune) / "history.jsonl", tune.key)
    log(2, {"train/loss": 1.0})
    (point,) = read_history(store.directory(tune) / "history.jsonl")
    tracker.point(tune.key, point)
    assert tracker.finish("KILLED").mirrored is not None
    mirror = open_mirror(built, store, database)
    client, experiment = mirror.book.client, mirror.book.experiment_id
    runs = client.search_runs([experiment])
    status = {run.data.tags["mergeline.key"].split("/", 1)[-1]: run.info.status for run in runs}
    assert "RUNNING" not in status.values()
    assert status[tune.key] == "KILLED"
    assert all(run.info.start_time > 0 for run in runs)
    assert all(run.data.metrics for run in runs if run.data.tags["mergeline.kind"] in ("evaluation", "track"))
    assert not (built.run_directory / "tracking.json").exists()
    for index, step in enumerate(built.steps[4:], start=4):
        write_record(store, step, START + 10 * index)
    Tracker(built, store).finish("FINISHED")
    assert {run.info.status for run in client.search_runs([experiment])} == {"FINISHED"}


def test_records_are_read_in_proportion_to_the_stages(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A merge has two parents that share an ancestor: walking all paths would double the work with every stage."""
    tasks = "[parity, count, read, larger, next, where, color, cell]"
    built, store = make(tmp_path / "ws", TINY, f"tasks={tasks}")
    reads = [0]
    real = Store.record

    def counted(self: Store, step: Step) -> Any:
        reads[0] += 1
        return real(self, step)

    monkeypatch.setattr(Store, "record", counted)
    complete(open_mirror(built, store, database))
    assert reads[0] < 10 * len(built.steps)
