"""The store: a step is done exactly when its record says so, whatever interrupts the writing."""

import json
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from foundation import files
from foundation.errors import InputError
from pipeline.graph.perform import perform
from pipeline.step import Outcome, Step, Work
from pipeline.store import Store


@dataclass(frozen=True, eq=False, repr=False)
class Write(Step):
    """Writes a checkpoint of two files, from its inputs' text and its own."""

    kind: ClassVar[str] = "write"
    text: str
    inputs_: tuple[Step, ...] = ()

    def run(self, work: Work) -> Outcome:
        below = "".join((work.checkpoint_of(step) / "text").read_text() for step in self.inputs_)
        temporary = work.scratch / "checkpoint"
        temporary.mkdir(exist_ok=True)
        (temporary / "text").write_text(below + self.text)
        (temporary / "more").write_text("more")
        output = work.directory / "checkpoint"
        files.publish_directory(temporary, output)
        with open(work.directory.parent / "ran.txt", "a") as log:
            log.write(self.key + "\n")
        return Outcome(output, metrics={"length": len(below + self.text)})


def test_a_step_runs_once_and_leaves_a_whole_record(tmp_path: Path) -> None:
    store, step = Store(tmp_path), Write("a")
    assert store.why_not(step) == "never run"
    assert perform(step, store).ran
    assert not perform(step, store).ran
    record = store.record(step)
    assert record is not None
    assert record.metrics == {"length": 1}
    assert set(record.content["outputs"]["files"]) == {"text", "more"}
    assert record.content["outputs"]["files"]["text"] == files.file_sha256(store.directory(step) / "checkpoint" / "text")
    assert record.content["versions"]["python"]
    assert not (store.directory(step) / "work").exists()
    assert (tmp_path / "ran.txt").read_text().splitlines() == [step.key]


def test_a_file_that_is_gone_or_cut_makes_the_step_run_again(tmp_path: Path) -> None:
    store, step = Store(tmp_path), Write("a")
    perform(step, store)
    place = store.directory(step) / "checkpoint" / "text"
    place.write_text("")
    assert store.why_not(step) == "its file text has 0 bytes where the record says 1"
    place.unlink()
    assert store.why_not(step) == "its file text is gone"
    assert perform(step, store).ran
    assert place.read_text() == "a"


def test_a_step_whose_input_is_not_stored_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="never run; run again to make it"):
        perform(Write("b", (Write("a"),)), Store(tmp_path))


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    store, step = Store(tmp_path), Write("a")
    perform(step, store)
    path = store.directory(step) / "record.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"record.json is not JSON"):
        store.record(step)
    path.write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match="not a record in format"):
        store.record(step)


class Crash(BaseException):
    """Not an Exception, so that nothing can swallow it."""


def durable_operations() -> list[str]:
    return ["replace", "rename", "fsync"]


def test_a_crash_before_or_after_any_durable_operation_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rename, replace and fsync of a two-step experiment is crashed, before and after; a rerun gives the same bytes."""
    first = Write("a")
    second = Write("b", (first,))

    def run(root: Path) -> None:
        for step in (first, second):
            perform(step, Store(root))

    def crashing(at: int, after: bool) -> tuple[dict[str, Any], list[int]]:
        count = [0]

        def wrapped(name: str) -> Any:
            real = getattr(os, name)

            def call(*arguments: Any, **keywords: Any) -> Any:
                count[0] += 1
                if count[0] == at and not after:
                    raise Crash
                result = real(*arguments, **keywords)
                if count[0] == at:
                    raise Crash
                return result

            return call

        return {name: wrapped(name) for name in durable_operations()}, count

    with monkeypatch.context() as patch:
        shims, total = crashing(-1, after=False)
        for name, shim in shims.items():
            patch.setattr(files.os, name, shim)
        run(tmp_path / "whole")
    expected = {step.key: Store(tmp_path / "whole").record(step).digest for step in (first, second)}  # type: ignore[union-attr]
    assert total[0] > 10
    for at in range(1, total[0] + 1):
        for after in (False, True):
            root = tmp_path / f"{at}-{after}"
            with monkeypatch.context() as patch:
                for name, shim in crashing(at, after)[0].items():
                    patch.setattr(files.os, name, shim)
                with pytest.raises(Crash):
                    run(root)
            run(root)
            store = Store(root)
            assert {step.key: store.record(step).digest for step in (first, second)} == expected  # type: ignore[union-attr]
            ran = (root / "ran.txt").read_text().splitlines()
            assert all(ran.count(step.key) <= 2 for step in (first, second))


def _perform_slowly(root: str) -> None:
    perform(Slow("x"), Store(Path(root)))


@dataclass(frozen=True, eq=False, repr=False)
class Slow(Write):
    kind: ClassVar[str] = "slow"

    def run(self, work: Work) -> Outcome:
        time.sleep(0.5)
        return super().run(work)


def test_two_processes_share_a_step_and_a_dead_owner_frees_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_perform_slowly, args=(str(tmp_path),)) for _ in range(3)]
    for worker in workers:
        worker.start()
    deadline = time.time() + 60
    while not (tmp_path / Slow("x").key / "work").exists() and time.time() < deadline:
        time.sleep(0.01)
    workers[0].kill()  # the owner or one who waits: either way the others end well
    for worker in workers[1:]:
        worker.join(60)
        assert worker.exitcode == 0
    assert Store(tmp_path).record(Slow("x")) is not None
    assert len((tmp_path / "ran.txt").read_text().splitlines()) <= 2


def test_scratch_that_outlived_its_record_is_removed_but_not_from_under_somebody(tmp_path: Path) -> None:
    """A process killed between writing the record and removing `work/`; nothing runs the step again, so nothing else would."""
    store, step = Store(tmp_path), Write("a")
    perform(step, store)
    (store.directory(step) / "work").mkdir()
    with store.locked(step):
        assert store.record(step) is not None
        assert (store.directory(step) / "work").exists()
    assert store.record(step) is not None
    assert not (store.directory(step) / "work").exists()


def test_what_a_killed_attempt_left_half_written_is_removed(tmp_path: Path) -> None:
    store, step = Store(tmp_path), Write("a")
    left = store.directory(step) / ".checkpoint.0a1b2c3d.tmp"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_text("half")
    perform(step, store)
    assert not left.exists()
