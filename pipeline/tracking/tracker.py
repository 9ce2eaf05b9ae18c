"""Tracking beside the work: events are written ahead to the run's journal, and one process of its own brings them to MLflow.

The driver never talks to MLflow and never loads it. At the end it waits as long as it is told to; what is not written by then is in the
journal, and `sync` brings it over whenever MLflow is there.
"""

import json
import queue
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from foundation.errors import Interrupted
from foundation.files import write_json_atomic
from pipeline.config.experiment import Built
from pipeline.graph.history import Point
from pipeline.plan import needed
from pipeline.step import Step
from pipeline.store import Store
from pipeline.tracking.backend import sqlite_has_run, tracking_uri, without_secrets
from pipeline.tracking.environment import write_environment
from pipeline.tracking.writing.journal import Event, Journal, Kind, journal_file, last_event, last_opened, read_events
from pipeline.tracking.writing.process import WriterProcess
from pipeline.tracking.writing.written import REFUSED_FILE, Mirrored, Written, as_place, read_refused

MARKER = "tracking.json"
BATCH = 10_000
"""Events that are flushed to disk at one time, at most."""
LOOK_SECONDS = 1.0
"""Between two looks whether the writing process lives."""
PATIENCE_SECONDS = 10.0
"""What is waited for at the end without a word."""


@dataclass(frozen=True)
class Tracked:
    """What became of a run's mirror: where it stands, if it is there as far as MLflow takes it, and a line for the user on what is not."""

    mirrored: Mirrored | None
    lacking: str = ""


class Tracker:
    """Takes events from the driver, which is never held up, and completes the mirror at the end."""

    def __init__(self, built: Built, store: Store) -> None:
        self.built, self.store = built, store
        self.address = tracking_uri(built.config.tracking.uri, built.workspace)  # with a password, which no file holds
        self.uri = without_secrets(self.address)
        self.process = WriterProcess()
        self._events: queue.Queue[Event | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def start(self) -> None:
        """Begin to write."""
        opened = Event(Kind.OPENED, time.time(), identity=self.built.identity)
        self._thread = threading.Thread(target=self._keep, args=(opened,), name="journal", daemon=True)
        self._thread.start()

    def point(self, key: str, point: Point) -> None:
        """A training point of a running step."""
        self._events.put(Event(Kind.POINT, point.time, key, point.step, point.values))

    def done(self, step: Step) -> None:
        """A step is stored."""
        self._events.put(Event(Kind.DONE, time.time(), step.key))

    def finish(self, status: str, say: Callable[[str], None] = lambda line: None) -> Tracked:
        """Close the run with `status` (FINISHED, FAILED, KILLED) and wait for MLflow, at most as long as the experiment says.

        `say` is told what is waited for. An interruption ends the waiting, and no more than that.
        """
        deadline = time.monotonic() + self.built.config.tracking.wait
        try:
            self._close(status)
            self._wait(deadline, say)
        except (Interrupted, KeyboardInterrupt):
            say("not waiting for MLflow any longer")
        finally:
            written = self.process.written
            tracked = self._tracked(written)
            self.process.end(at_once=written is None or written.place is None)
        if tracked.mirrored is not None and not tracked.lacking and status == "FINISHED":
            mark(self.built, tracked.mirrored)
        return tracked

    def _close(self, status: str) -> None:
        if self._thread is None:  # nothing was to run: the journal as it is, or one made from records
            keep_journal(self.built, self.store, status)
            self.process.write(self.built.run_directory, self.address)
        else:
            self._events.put(Event(Kind.CLOSED, time.time(), status=status))
            self._events.put(None)
            self._thread.join()
            self.process.hurry()

    def _wait(self, deadline: float, say: Callable[[str], None]) -> None:
        if self._failure is not None:
            return  # the end of the run is not in the journal, so nobody will come to it
        patience = min(deadline, time.monotonic() + PATIENCE_SECONDS)
        if not self.process.wait(patience - time.monotonic()) and (left := deadline - time.monotonic()) > 0:
            say(f"waiting up to {left:.0f} s for MLflow at {self.uri}; Ctrl-C leaves it to `sync`")
            self.process.wait(left)

    def _keep(self, opened: Event) -> None:
        """The journal's thread: one flush for all events that came meanwhile, and an eye on the process that writes MLflow."""
        try:
            journal = Journal(journal_file(self.built.run_directory))
            journal.close_left_open()
            journal.append([opened])
            self.process.write(self.built.run_directory, self.address)
            write_environment(self.built.run_directory)
            ended = False
            while not ended:
                batch = list(self._batch())
                ended = None in batch
                journal.append([event for event in batch if event is not None])
                self.process.keep_alive()
            journal.close()
        except Exception as error:  # of whatever kind: it is told at the end, and the work goes on
            self._failure = error

    def _batch(self) -> Iterator[Event | None]:
        """The events that are there; waits a moment for the first."""
        try:
            yield self._events.get(timeout=LOOK_SECONDS)
            for _ in range(BATCH):
                yield self._events.get_nowait()
        except queue.Empty:
            return

    def _tracked(self, written: Written | None) -> Tracked:
        name = self.built.name
        if self._failure is not None:
            return Tracked(None, f"the journal in {journal_file(self.built.run_directory).parent} could not be written ({self._failure})")
        if written is None or written.place is None:
            events = waiting(self.built.run_directory, written)
            reason = self.process.trouble or "it has not answered yet"
            command = shlex.join(["python", "-m", "pipeline", "sync", name, "--workspace", str(self.built.workspace)])
            return Tracked(None, f"{events} events wait for MLflow at {self.uri} ({reason}); once it answers: {command}")
        return Tracked(written.place, refused_line(self.built.run_directory, written))


def keep_journal(built: Built, store: Store, status: str | None = None) -> None:
    """See that the journal of a run that nobody runs ends with a closed attempt, with `status` where one is given.

    Where there is no journal, as of runs from before there were any, its times are those of the records.
    """
    path = journal_file(built.run_directory)
    journal = Journal(path)
    journal.close_left_open()
    last = last_event(path) if last_opened(path) == built.identity else None
    if last is None or (status is not None and last.status != status):
        records = [record for step in built.steps if (record := store.by_key(step.key)) is not None]
        began = ended = time.time()
        if last is None and records:
            began, ended = min(record.content["started"] for record in records), max(record.content["finished"] for record in records)
        ending = status or ("KILLED" if needed(built.targets, store) else "FINISHED")
        journal.append([Event(Kind.OPENED, began, identity=built.identity), Event(Kind.CLOSED, ended, status=ending)])
    journal.close()


def waiting(run_directory: Path, written: Written | None) -> int:
    """How many events MLflow may lack."""
    return sum(1 for _ in read_events(journal_file(run_directory), 0 if written is None else written.offset))


def refused_line(run_directory: Path, written: Written) -> str:
    """What MLflow refused for good, as a line for the user; empty where it took everything."""
    if not written.refused:
        return ""
    what, why = next(iter(read_refused(run_directory).items()), ("an entry", "its file is gone"))
    place = journal_file(run_directory).with_name(REFUSED_FILE)
    return f"MLflow refused {written.refused} of the run's entries for good, e.g. {what} ({why}); see {place}"


def mark(built: Built, place: Mirrored) -> None:
    """Leave where a finished run stands in MLflow, completely."""
    built.run_directory.mkdir(parents=True, exist_ok=True)
    write_json_atomic(built.run_directory / MARKER, {"identity": built.identity, **asdict(place)})


def already_mirrored(built: Built) -> Mirrored | None:
    """Where the finished run stands in MLflow, if all of it is there already (asked of SQLite only: servers are always written again)."""
    marker = built.run_directory / MARKER
    if not marker.exists():
        return None
    uri = tracking_uri(built.config.tracking.uri, built.workspace)
    try:
        content = json.loads(marker.read_bytes())
        same = (content.pop("identity"), content["uri"]) == (built.identity, without_secrets(uri))
        place = as_place(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # damaged: it is written again
    return place if same and sqlite_has_run(uri, place.pipeline_run) else None
