"""What the process that writes MLflow does with a journal, here in the test's own process: lost answers, refusals, attempts."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mirrored import START, TINY, Dump, dump, leave, make, open_mirror, write, write_record

import pipeline
from pipeline.config.experiment import Built, build
from pipeline.graph.history import read_history
from pipeline.step import Step
from pipeline.steps import FineTune
from pipeline.store import Store
from pipeline.tracking.book import Book
from pipeline.tracking.tracker import keep_journal
from pipeline.tracking.writing import process
from pipeline.tracking.writing.journal import Event, Journal, Kind, journal_file
from pipeline.tracking.writing.written import read_refused

ONE = "tasks=[parity]"
"""One stage: six steps."""


def found(built: Built, store: Store, database: Path) -> Dump:
    return dump(open_mirror(built, store, database))


def events_of(store: Store, step: Step) -> list[Event]:
    points = read_history(store.directory(step) / "history.jsonl")
    return [*(Event(Kind.POINT, point.time, step.key, point.step, point.values) for point in points), Event(Kind.DONE, START, step.key)]


def journal_of(built: Built, store: Store, steps: list[Step], opened: float, closed: float | None = None, status: str = "KILLED") -> None:
    journal = Journal(journal_file(built.run_directory))
    journal.append([Event(Kind.OPENED, opened, identity=built.identity), *(event for step in steps for event in events_of(store, step))])
    if closed is not None:
        journal.append([Event(Kind.CLOSED, closed, status=status)])
    journal.close()


def told(content: Dump, key: str) -> list[Any]:
    (entry,) = (entry for name, entry in content.items() if name.endswith(key))
    return list(entry[0])


@pytest.fixture
def run(tmp_path: Path) -> tuple[Built, Store]:
    built, store = make(tmp_path / "ws", TINY, ONE)
    journal_of(built, store, built.steps, START - 5, START + 500, "FINISHED")
    return built, store


def test_the_process_finds_this_package_from_wherever_it_is_started(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", "import importlib.util as u; print(u.find_spec('pipeline').origin)"]  # -S: no installed packages
    done = subprocess.run(command, env=process.environment(), cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert Path(done.stdout.strip()).samefile(pipeline.__file__)


def test_the_end_has_the_times_of_the_journal_and_is_reached_once(run: tuple[Built, Store], database: Path, tmp_path: Path) -> None:
    built, store = run
    written = write(built, database)
    assert written.place is not None
    assert written.offset == journal_file(built.run_directory).stat().st_size
    once = found(built, store, database)
    assert told(once, built.identity[:16])[0][1:] == ["FINISHED", (START - 5) * 1000, (START + 500) * 1000]
    assert {entry[0][0][1] for name, entry in once.items() if name.startswith("run ")} == {"FINISHED"}
    again = write(built, database, whole=True)
    assert (again.wrote.runs, again.wrote.models) == (0, 0)
    assert found(built, store, database) == once
    place = Path(once_artifacts(built, database))
    assert {path.name for path in place.iterdir()} >= {"experiment.yaml"}


def once_artifacts(built: Built, database: Path) -> str:
    book = Book(f"sqlite:///{database}", built.config.name, database.parent, built.identity[:16])
    run = book.find(built.identity[:16])
    assert run is not None
    return str(book.client.get_run(run).info.artifact_uri).removeprefix("file://")


class Lossy:
    """A client some of whose requests fail, ever fewer, with the answer lost: they were carried out all the same."""

    def __init__(self, client: Any, left: list[int]) -> None:
        self._client, self._left = client, left

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name.startswith("_") or not callable(real):
            return real

        def call(*arguments: Any, **keywords: Any) -> Any:
            answer = real(*arguments, **keywords)
            self._left[0] -= 1
            if self._left[0] == 0:
                self._left[1] += 12
                self._left[0] = self._left[1]
                raise ConnectionError("the answer was lost")
            return answer

        return call


def lossy(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    import pipeline.tracking.book as module

    real, left = module.open_client, [at, at]
    monkeypatch.setattr(module, "open_client", lambda uri: Lossy(real(uri), left))


def test_answers_that_are_lost_double_nothing(
    run: tuple[Built, Store], database: Path, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, store = run
    write(built, database)
    with monkeypatch.context() as patch:
        lossy(patch, 17)
        other = Path(shutil.copy(empty_database, tmp_path / "lossy.db"))
        assert write(built, other, whole=True).place is not None
    assert found(built, store, other) == found(built, store, database)


def test_a_run_that_was_made_twice_is_taken_out(run: tuple[Built, Store], database: Path) -> None:
    built, store = run
    write(built, database)
    once = found(built, store, database)
    book = open_mirror(built, store, database).book
    client = book.client
    for key in (built.identity[:16], f"{built.identity[:16]}/{built.steps[0].key}"):  # as requests leave them that arrive late
        of_mine = client.get_run(book.find(key)).data.tags
        wanted = {name: value for name, value in of_mine.items() if name.startswith("mergeline.") and name != "mergeline.mirrored"}
        client.create_run(book.experiment_id, tags=wanted)
    model = client.get_logged_model(book.find_model(f"{built.identity[:16]}/{built.steps[0].key}"))
    client.create_logged_model(book.experiment_id, "base", model.source_run_id, dict(model.tags), dict(model.params))
    assert found(built, store, database) == once


def test_attempts_are_told_in_their_order(tmp_path: Path, database: Path, empty_database: Path) -> None:
    """Killed in its second stage, killed outright in the third attempt, never finished: told as it happened, at once or one by one."""
    built, store = make(tmp_path / "ws", steps=5)
    tune = [step for step in built.steps if isinstance(step, FineTune)][1]
    opened = START
    for index, status in enumerate(("KILLED", "FAILED")):
        opened = START + 1000 * index
        journal_of(built, store, built.steps[:5] if index == 0 else [], opened, opened + 100, status)
        write(built, database)
    journal = Journal(journal_file(built.run_directory))
    point = Event(Kind.POINT, opened + 1050, tune.key, 2, {"train/loss": 1.0})
    journal.append([Event(Kind.OPENED, opened + 1000, identity=built.identity), point])
    live = write(built, database, pauses=2)  # its driver is gone, too
    assert live.place is None
    after = found(built, store, database)
    assert told(after, built.identity[:16])[0][1:] == ["KILLED", START * 1000, point.time * 1000]
    assert told(after, tune.key)[0][1:] == ["KILLED", point.time * 1000, point.time * 1000]
    keep_journal(built, store)
    write(built, database, whole=True)
    other = Path(shutil.copy(empty_database, tmp_path / "other.db"))
    write(built, other)
    assert found(built, store, other) == found(built, store, database) == after


def test_a_later_writer_goes_on_where_an_earlier_one_was_and_from_the_start_in_an_emptied_database(
    run: tuple[Built, Store], database: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, store = run
    write(built, database)
    once, read = found(built, store, database), []
    import pipeline.tracking.writing.writer as module

    real = module.read_events
    monkeypatch.setattr(module, "read_events", lambda path, offset: (read.append(offset), real(path, offset))[1])
    journal_of(built, store, [], START + 600, START + 700, "FINISHED")
    write(built, database)
    assert read[0] > 0
    later = found(built, store, database)
    assert told(later, built.identity[:16])[0][3] == (START + 700) * 1000
    assert {**later, **{name: entry for name, entry in once.items() if name.endswith(built.identity[:16])}} == once
    shutil.copy(empty_database, database)
    read.clear()
    write(built, database)
    assert read[0] == 0
    assert found(built, store, database) == later


def test_events_of_another_experiment_of_that_name_are_passed_over(tmp_path: Path, database: Path) -> None:
    before, store = make(tmp_path / "ws", TINY, "train.max_steps=6", steps=0)
    journal_of(before, store, before.steps, START - 50, START - 40, "FAILED")
    built = build(TINY, [f"workspace={tmp_path / 'ws'}"])
    for index, step in enumerate(built.steps):
        write_record(store, step, START + 10 * index)
    before.run_directory.rename(built.run_directory)
    leave(built)
    journal_of(built, store, built.steps, START - 5, START + 500, "FINISHED")
    write(built, database)
    content = found(built, store, database)
    assert len([name for name in content if name.endswith(built.identity[:16])]) == 1
    assert not [name for name in content if before.identity[:16] in name]


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have MLflow refuse every request that names `word`, as one with a value that it does not take."""

    def refuse(word: str) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

        real = MlflowClient.log_batch

        def log_batch(self: Any, run_id: str, metrics: Any = (), params: Any = (), tags: Any = (), **rest: Any) -> Any:
            if any(word in str(each.key) for each in (*metrics, *params, *tags)):
                raise MlflowException(f"{word} is not taken", INVALID_PARAMETER_VALUE)
            return real(self, run_id, metrics, params, tags, **rest)

        monkeypatch.setattr(MlflowClient, "log_batch", log_batch)

    return refuse


def test_what_mlflow_refuses_is_kept_and_all_else_is_written(
    tmp_path: Path, database: Path, refusing: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    built, store = make(tmp_path / "ws", steps=4)
    tune = [step for step in built.steps if isinstance(step, FineTune)][1]
    journal = Journal(journal_file(built.run_directory))
    values = {"train/loss": 1.0, "train/poison": 2.0}
    points = [Event(Kind.POINT, START + step, tune.key, step, values if step == 7 else {"train/loss": 1 / step}) for step in range(1, 20)]
    journal.append([Event(Kind.OPENED, START, identity=built.identity), *points, Event(Kind.CLOSED, START + 50, status="FAILED")])
    refusing("poison")
    written = write(built, database)
    assert written.place is not None
    assert read_refused(built.run_directory) == {f"train/poison of {tune.key} at 7": "MlflowException: poison is not taken"}
    assert written.refused == 1
    shown = {(key, step) for key, step, *_ in told(found(built, store, database), tune.key)[3]}
    assert shown == {("train/loss", step) for step in range(1, 20)}
    monkeypatch.undo()
    assert write(built, database, whole=True).refused == 0
    assert not read_refused(built.run_directory)
    assert ("train/poison", 7, 2.0, (START + 7) * 1000) in map(tuple, told(found(built, store, database), tune.key)[3])


def test_a_step_that_mlflow_refuses_does_not_keep_the_others_out(
    run: tuple[Built, Store], database: Path, refusing: Callable[[str], None]
) -> None:
    built, store = run
    refusing("forgetting")  # the tracks' and the pipeline's values alone
    written = write(built, database)
    assert written.place is not None
    refused = read_refused(built.run_directory)
    assert set(refused) >= {"results"}
    assert all(name == "results" or name.startswith("step evaluate-") for name in refused)
    models = [name for name in found(built, store, database) if name.startswith("model ")]
    assert len(models) == 3


def test_the_points_of_a_run_become_few_requests(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    built, store = make(tmp_path / "ws", TINY, ONE, steps=1)
    tune = next(step for step in built.steps if isinstance(step, FineTune))
    journal = Journal(journal_file(built.run_directory))
    points = [Event(Kind.POINT, START + step, tune.key, step, {"train/loss": 1 / (step + 1)}) for step in range(2500)]
    journal.append([Event(Kind.OPENED, START, identity=built.identity), *points, Event(Kind.CLOSED, START + 3000, status="KILLED")])
    sizes: list[int] = []
    real = MlflowClient.log_batch

    def log_batch(self: Any, run_id: str, metrics: Any = (), *rest: Any, **more: Any) -> Any:
        sizes.append(len(metrics))
        return real(self, run_id, metrics, *rest, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    write(built, database)
    assert [size for size in sizes if size > 100] == [1000, 1000, 500]
    assert len(told(found(built, store, database), tune.key)[3]) == 2500


def test_events_of_steps_that_the_experiment_has_not_are_passed_over(run: tuple[Built, Store], database: Path) -> None:
    built, store = run
    write(built, database)
    once = found(built, store, database)
    journal = Journal(journal_file(built.run_directory))
    gone = [Event(Kind.POINT, START, "finetune-gone", 1, {"train/loss": 1.0}), Event(Kind.DONE, START, "finetune-gone")]
    journal.append([Event(Kind.OPENED, START - 5, identity=built.identity), *gone, Event(Kind.CLOSED, START + 500, status="FINISHED")])
    journal.close()
    told = write(built, database, pauses=3)
    assert told.place is not None, told.trouble
    assert found(built, store, database) == once


def test_a_journal_that_fails_is_told_at_the_end_and_nobody_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it fails by; the process that writes would wait for an end that the journal does not have."""
    from pipeline.tracking.tracker import Tracker

    built, store = make(tmp_path / "ws", TINY, ONE, "tracking.wait=300", steps=1)
    real = Journal.append

    def append(self: Journal, events: list[Event]) -> None:
        if any(event.kind is Kind.DONE for event in events):
            raise ValueError("not to be written")
        real(self, events)

    monkeypatch.setattr(Journal, "append", append)
    tracker = Tracker(built, store)
    tracker.start()
    tracker.done(built.steps[0])
    began = time.monotonic()
    tracked = tracker.finish("FINISHED")
    assert time.monotonic() - began < 20  # of 300; the end of a process on a busy machine
    assert tracked.mirrored is None
    assert "could not be written (not to be written)" in tracked.lacking
