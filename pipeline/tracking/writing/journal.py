"""The events of a run, written ahead: one JSON line each, flushed to disk before anybody is told of them. MLflow is written from here.

    runs/NAME/tracking/events.jsonl      {"event": "point", "key": "finetune-5f0c…", "step": 10, "time": 1763791200.1, "values": {…}}
                       written.json      how far MLflow has them                                              (`written.py`)
                       refused.jsonl     what MLflow will never take, and why
                       environment.json  with what the run was made                                           (`environment.py`)

The journal is only ever appended to, also by later attempts at the same run. An attempt begins with `opened` and ends with `closed`; one
whose process was killed is closed by the next one, as KILLED at its last event. A line that was torn by a crash is left out.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from foundation.files import fsync_path
from pipeline.graph.history import Point

ROOM = "tracking"
EVENTS_FILE = "events.jsonl"
STATUSES = ("FINISHED", "FAILED", "KILLED")
"""MLflow's words for how an attempt ended."""
LATEST, MOST_STEPS = 1e11, 2**53
"""Seconds since 1970 and steps that a line may tell: more is damage."""
READ_BYTES = 1 << 20
"""So much of the journal is read at one time, and whole lines more."""


class Kind(StrEnum):
    """What happened: an attempt began, a step in training told a point, a step was stored, the attempt ended."""

    OPENED = "opened"
    POINT = "point"
    DONE = "done"
    CLOSED = "closed"


@dataclass(frozen=True)
class Event:
    """One line; `time` in seconds. `key` is the step's, `identity` the experiment's (of `opened`), `status` MLflow's word (of `closed`)."""

    kind: Kind
    time: float
    key: str = ""
    step: int = 0
    values: dict[str, float] = field(default_factory=dict)
    identity: str = ""
    status: str = ""

    @property
    def point(self) -> Point:
        """The training point that it tells."""
        return Point(self.step, self.time, self.values)


FIELDS = {
    Kind.OPENED: ("identity",),
    Kind.POINT: ("key", "step", "values"),
    Kind.DONE: ("key",),
    Kind.CLOSED: ("status",),
}
"""What each kind of line holds beside its kind and time."""


def journal_file(run_directory: Path) -> Path:
    """Where the events of a run lie."""
    return run_directory / ROOM / EVENTS_FILE


OPENING = b'{"event":"opened"'


class Journal:
    """A run's journal, opened for appending by the one process that runs it (or brings it up to date)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (as long as the run)
        fsync_path(path.parent)
        if not _ends_whole(path):
            self._file.write(b"\n")  # so that the next event stands on its own

    def append(self, events: Sequence[Event]) -> None:
        """Write events and flush them to disk, once for all of them."""
        if events:
            data = memoryview("".join(_line(event) for event in events).encode())
            while data:
                data = data[self._file.write(data) or 0 :]
            os.fsync(self._file.fileno())

    def close_left_open(self) -> None:
        """End the attempt of a process that was killed: as KILLED, at its last event."""
        last = last_event(self.path)
        if last is not None and last.kind is not Kind.CLOSED:
            self.append([Event(Kind.CLOSED, last.time, status="KILLED")])

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def read_events(path: Path, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """The whole events from a byte offset on, each with the offset behind it. A line that still lacks its end is not there yet."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        file.seek(offset)
        while lines := file.readlines(READ_BYTES):
            for line in lines:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                event = _event(line)
                if event is not None:
                    yield event, offset


def last_event(path: Path) -> Event | None:
    """The newest event of a journal; None where there is none. Reads from the end."""
    size = path.stat().st_size if path.exists() else 0
    reach = 1 << 16
    while size:
        start = max(0, size - reach)
        with open(path, "rb") as file:
            file.seek(start)
            lines = file.read().splitlines()[1 if start else 0 :]  # the first may be the rest of a line
        found = next((event for line in reversed(lines) if (event := _event(line)) is not None), None)
        if found is not None or start == 0:
            return found
        reach *= 16
    return None


def last_opened(path: Path) -> str | None:
    """The identity of the experiment whose attempt a journal tells last; None where it tells of none."""
    found = None
    with open(path, "rb") as file:
        for line in file:
            if line.startswith(OPENING) and (event := _event(line)) is not None:
                found = event.identity
    return found


def _ends_whole(path: Path) -> bool:
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - 1))
        return file.read(1) in (b"", b"\n")


def _line(event: Event) -> str:
    told: dict[str, Any] = {"event": event.kind.value, "time": event.time}
    return json.dumps(told | {name: getattr(event, name) for name in FIELDS[event.kind]}, separators=(",", ":")) + "\n"


def _event(line: bytes) -> Event | None:
    """A line as an event; None where it was torn, or says what no event of ours says."""
    try:
        told = json.loads(line)
        kind = Kind(told["event"])
        event = Event(kind, float(told["time"]), **{name: told[name] for name in FIELDS[kind]})
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return event if _is_sound(event) else None


def _is_sound(event: Event) -> bool:
    """Whether all that an event tells is of its kind, and in the bounds of what can be stored."""
    texts = isinstance(event.key, str) and isinstance(event.identity, str)
    numbers = 0 <= event.time < LATEST and type(event.step) is int and abs(event.step) < MOST_STEPS and isinstance(event.values, dict)
    ended = event.kind is not Kind.CLOSED or event.status in STATUSES
    return texts and numbers and ended and all(type(value) in (int, float) for value in event.values.values())
