"""Training metrics of one step, kept with their own time stamps, so that they can be shown again without being doubled.

One JSON line per point: `{"step": 10, "time": 1763791200.1, "values": {"train/loss": 2.31}}`. After an interruption a stage repeats the
steps past its last checkpoint and gets the same values; they keep the time stamps of the first time.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Point:
    """Metrics at one optimizer step; `time` in seconds since 1970."""

    step: int
    time: float
    values: dict[str, float]


def read_history(path: Path) -> Iterator[Point]:
    """The points of a history file in order; what is no point, as a last line that was cut off by a crash, is left out."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            content = json.loads(line)
            step, when, values = content["step"], content["time"], content["values"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if type(step) is int and type(when) in (int, float) and isinstance(values, dict):
            yield Point(step, when, values)


@dataclass
class HistoryLog:
    """Callable `(step, values)`: appends to the file, then tells the listener. Picklable; one writer at a time (rank 0)."""

    path: Path
    key: str
    listener: Any = None
    known: dict[tuple[int, tuple[str, ...]], Point] | None = None

    def __call__(self, step: int, values: dict[str, float]) -> None:
        if self.known is None:
            self.known = {(point.step, tuple(sorted(point.values))): point for point in read_history(self.path)}
            end_line(self.path)
        place = (step, tuple(sorted(values)))
        if place not in self.known:
            self.known[place] = Point(step, time.time(), values)
            with open(self.path, "a") as file:
                file.write(json.dumps({"step": step, "time": self.known[place].time, "values": values}) + "\n")
        if self.listener is not None:
            self.listener.point(self.key, self.known[place])


def end_line(path: Path) -> None:
    """Close a line that a crash left open, so that the next point stands on its own."""
    if path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size:
        with open(path, "a") as file:
            file.write("\n")
