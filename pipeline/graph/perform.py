"""Perform one step: wait for its lock, run it unless it is stored by now, write its record. Runs on any worker, with or without Ray."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import InputError
from pipeline.graph.history import HistoryLog
from pipeline.graph.usage import Sampling, Usage
from pipeline.graph.usage_files import throughput, totals
from pipeline.step import Outcome, Step
from pipeline.store import Record, Store

if TYPE_CHECKING:
    from pipeline.objects.presence import Presence

COMMIT_VARIABLE = "MERGELINE_COMMIT"  # set by the driver for all workers
LIBRARIES = ("torch", "transformers", "accelerate", "safetensors", "ray", "numpy", "mergeline")


@dataclass(frozen=True)
class Performed:
    """How a step ended: its key, and whether this call did the work or found it done."""

    key: str
    ran: bool


@dataclass
class StepWork:
    """The `Work` a step is given (see `step.py`). `listener` is a picklable sink for progress and training metrics."""

    store: Store
    step: Step
    listener: Any = None
    directory: Path = field(init=False)
    scratch: Path = field(init=False)
    presence: "Presence | None" = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.store.mirror is not None:
            from pipeline.objects.presence import Presence

            self.presence = Presence(self.store, self.step.key)
        self.directory = self.store.directory(self.step)
        self.scratch = self.directory / "work"

    def checkpoint_of(self, step: Step) -> Path:
        record = self._input(step, whole=False)
        if record.checkpoint is None:
            raise InputError(f"{self.step.key} needs a checkpoint, but its input {step.key} makes none")
        return record.checkpoint

    def directory_of(self, step: Step) -> Path:
        return self._input(step, whole=True).directory

    def digest_of(self, step: Step) -> str:
        return self._stored(step).digest

    def _input(self, step: Step, whole: bool) -> Record:
        """An input whose files are here, with the bytes of their record."""
        record = self._stored(step)
        self.store.take_up(record, whole)
        if self.presence is not None:
            self.presence.taken[step.key, whole] = record
        return record

    def _stored(self, step: Step) -> Record:
        record = self.store.record(step)
        if record is None:
            raise InputError(f"{self.step.key} needs {step.key}, but {self.store.why_not(step)}; run again to make it")
        return record

    def progress(self, done: float, total: float, note: str = "") -> None:
        if self.listener is not None:
            self.listener.progress(self.step.key, done, total, note)

    def log_function(self) -> Callable[[int, dict[str, float]], None]:
        return HistoryLog(self.directory / "history.jsonl", self.step.key, self.listener)


def perform(step: Step, store: Store, listener: Any = None, usage: float = 0) -> Performed:
    """The step's record exists when this returns. Whoever holds the step's lock does the work; others wait and find it done.

    `usage`: seconds between two looks at the machine meanwhile (0: none).
    """
    with store.locked(step):
        if store.record(step) is not None:
            return Performed(step.key, ran=False)
        store.begin(step)
        started = time.time()
        if listener is not None:
            listener.started(step.key)
        with Usage(Sampling(store.directory(step), usage, platform.node())) as watched:
            outcome = _run(step, StepWork(store, step, listener))
            finished = time.time()
        facts = {"started": started, "finished": finished, "seconds": finished - started, "versions": versions()}
        store.finish(step, outcome, {**facts, "usage": usage_of(step, outcome, watched, started, finished)})
    return Performed(step.key, ran=True)


def _run(step: Step, work: StepWork) -> Outcome:
    """The step's outcome. Where nodes share an object store alone, its workers know what it takes up, and what they tell comes here."""
    if work.presence is None:
        return step.run(work)
    from pipeline.objects.presence import present

    with present(work.presence):
        outcome = step.run(work)
    work.presence.gather(outcome.there)
    return outcome


def usage_of(step: Step, outcome: Outcome, watched: Usage, started: float, finished: float) -> dict[str, Any]:
    """What the step took of its machine and did per second, for its record."""
    asked = getattr(getattr(step, "suite", None), "names", ())
    told: dict[str, Any] = {"seconds": finished - started}
    if speeds := throughput(outcome.metrics, finished - started, tuple(asked)):
        told["throughput"] = speeds
    try:
        told |= totals(watched.sampling.directory, started)
    except OSError as error:
        watched.failure = watched.failure or str(error)
    return told | ({"failure": watched.failure} if watched.failure else {})


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Python's and the libraries' versions, the machine's processor family, and the commit of our own code."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "commit": os.environ.get(COMMIT_VARIABLE, "unknown")}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found
