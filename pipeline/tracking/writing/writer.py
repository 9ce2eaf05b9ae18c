"""The process that writes MLflow, one per pipeline: it tails the journal of a run and keeps at it until MLflow has everything.

Started by `process.py`, which sends it jobs as lines of JSON; it answers by `written.json` alone. It ends when its pipe closes or its
parent is gone, so that nobody is left behind. No signal of the terminal ends it before it has written the end. Only here MLflow is loaded.
"""

import json
import os
import queue
import select
import signal
import sys
import threading
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.config.experiment import EXPERIMENT_FILE, Built, build
from pipeline.store import Store
from pipeline.tracking.backend import reason_of, sqlite_file, tracking_uri, without_secrets
from pipeline.tracking.writing.journal import ROOM, Event, Kind, journal_file, last_event, read_events
from pipeline.tracking.writing.replay import Refusals, Replay
from pipeline.tracking.writing.written import Job, Mirrored, Written, Wrote, read_written, write_written

POLL_SECONDS = 1.0
"""Between two looks at the journal; the points of a second become one request."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 15.0
"""Seconds before MLflow is tried again: doubled each time, up to the longest."""
CHUNK = 5000
"""Events that are written before it is noted how far they are."""
LEFT_SECONDS = 5.0
"""What a process without a parent has left to say that its run was killed."""
LOCK_SECONDS = 30.0
"""What a new writer waits for one whose driver was killed."""
NICENESS = 5
"""The work goes first."""


class Parent:
    """The driver's end of the pipe: its jobs, its calls to hurry, and whether it is still there. A thread listens."""

    def __init__(self) -> None:
        self.jobs: queue.Queue[Job | None] = queue.Queue()
        self.gone = threading.Event()
        self._woken = threading.Event()
        self._pid = os.getppid()
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def pause(self, seconds: float) -> bool:
        """Wait; True if the parent cut it short."""
        woken = self._woken.wait(seconds)
        self._woken.clear()
        return woken

    def _listen(self) -> None:
        rest = b""
        while os.getppid() == self._pid:
            if not select.select([sys.stdin], [], [], 1.0)[0]:
                continue
            read = os.read(sys.stdin.fileno(), 1 << 16)
            if not read:
                break
            *lines, rest = (rest + read).split(b"\n")
            for line in filter(None, lines):
                self.jobs.put(Job(**json.loads(line)))
            self._woken.set()  # an empty line says no more than that
        self.gone.set()
        self._woken.set()
        self.jobs.put(None)
        time.sleep(LEFT_SECONDS)
        os._exit(1)  # whatever request it is that does not come back


class Writer:
    """Writes one run until all of it is written, or the parent is gone."""

    def __init__(self, job: Job, parent: Parent) -> None:
        self.job, self.parent = job, parent
        self.run_directory = Path(job.run_directory)
        self.journal = journal_file(self.run_directory)
        self.built: Built | None = None
        self.replay: Replay | None = None
        self.written = Written("", "", session=job.session)
        self.refusals: Any = None
        self._shaken = False
        self._file: tuple[Path, int] | None = None
        self._before = Wrote()
        self._told = 0.0

    def run(self) -> None:
        """Come to the end of the journal's last attempt, trying again for as long as it takes."""
        delay = FIRST_DELAY
        while not self.parent.gone.is_set():
            try:
                if self._advance():
                    return
                delay = FIRST_DELAY
            except Exception as error:
                self._stumble(error)
                delay = FIRST_DELAY if self.parent.pause(delay) else min(2 * delay, LONGEST_DELAY)
        try:
            self._last_words()
        except Exception as error:
            self._stumble(error)

    def _advance(self) -> bool:
        """Write what the journal has by now; True once that was the end."""
        if self.replay is None:
            self.replay = self._open()
        self._check_file()
        events = list(islice(read_events(self.journal, self.written.offset), CHUNK))
        last, offset = events[-1] if events else (last_event(self.journal), self.written.offset)  # of a run that ended, all may be written
        if last is not None and last.kind is Kind.CLOSED and not any(read_events(self.journal, offset)):
            self.replay.apply([event for event, _ in events[:-1]])
            if self._shaken:  # a request whose answer was lost may have arrived since
                self.replay, self._shaken = self._open(), False
            place = self.replay.finish(last)
            self._check_file()
            self._tell(place=place, offset=offset, trouble="")
            return True
        if events:
            self.replay.apply([event for event, _ in events])
            self._tell(offset=offset, trouble="")
        if len(events) < CHUNK:
            self.parent.pause(POLL_SECONDS)
        return False

    def _open(self) -> Replay:
        """The book as MLflow has it now; from the first event on where it lacks the run."""
        import mlflow  # noqa: F401 (takes seconds, which are no silence of the server's)

        from pipeline.tracking.book import Book
        from pipeline.tracking.mirror import Mirror

        if self.built is None:
            self.built = self._build()
            self._tell()
        config, identity = self.built.config, self.built.identity
        uri = tracking_uri(self.job.uri or config.tracking.uri, self.built.workspace)
        self._before = self._wrote()
        self.replay = None
        book = Book(uri, config.tracking.experiment or config.name, self.built.workspace / "mlartifacts", identity[:16])
        database = sqlite_file(uri)
        self._file = None if database is None else (database, database.stat().st_ino)
        if book.find(identity[:16]) is None and self.written.offset:
            self.written = replace(self.written, offset=0)
        if self.refusals is None:
            self.refusals = Refusals(self.run_directory, keep=self.written.offset > 0)
        return Replay(Mirror(book, self.built, Store(self.built.workspace / "store")), self.refusals, self._alive)

    def _check_file(self) -> None:
        """End the process if the database's file was removed or replaced: MLflow would go on writing to one that nobody sees any more."""
        if self._file is None:
            return
        path, number = self._file
        if not path.exists() or path.stat().st_ino != number:
            raise SystemExit(f"the database {path} was removed while it was written to")

    def _build(self) -> Built:
        """The experiment by the file that its run left, and how far an earlier writer came."""
        built = build(self.run_directory / EXPERIMENT_FILE, [f"workspace={self.run_directory.parents[1]}"])
        uri = without_secrets(tracking_uri(self.job.uri or built.config.tracking.uri, built.workspace))
        self.written = Written(uri, built.identity, session=self.job.session)
        known = None if self.job.whole else read_written(self.run_directory)
        if known is not None and (known.uri, known.identity) == (uri, built.identity) and known.offset <= self.journal.stat().st_size:
            self.written = replace(self.written, offset=known.offset)
        return built

    def _stumble(self, error: Exception) -> None:
        self._before = self._wrote()
        self._shaken, self.replay = True, None
        self._tell(trouble=reason_of(error))

    def _last_words(self) -> None:
        """The driver was killed: what it told last, and that the run ended there."""
        last: Event | None = last_event(self.journal)
        if self.replay is not None and last is not None:
            self.replay.apply([event for event, _ in read_events(self.journal, self.written.offset)])
            if last.kind is not Kind.CLOSED:
                self.replay.mirror.close("KILLED", last.time)

    def _wrote(self) -> Wrote:
        before, book = self._before, None if self.replay is None else self.replay.mirror.book
        if book is None:
            return before
        return Wrote(before.runs + book.runs_made, before.models + book.models_made, before.points + book.points_sent)

    def _alive(self) -> None:
        if time.monotonic() - self._told > POLL_SECONDS:
            self._tell()

    def _tell(self, place: Mirrored | None = None, **changes: Any) -> None:
        refused = 0 if self.refusals is None else len(self.refusals.known)
        self.written = replace(self.written, **changes, refused=refused, wrote=self._wrote(), place=place)
        write_written(self.run_directory, self.written)
        self._told = time.monotonic()


def main() -> None:
    """Do the jobs that come, until there is nobody to send one."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    parent = Parent()
    while (job := parent.jobs.get()) is not None:
        with FileLock(Path(job.run_directory) / ROOM / ".lock", timeout=LOCK_SECONDS):
            Writer(job, parent).run()


if __name__ == "__main__":
    main()
