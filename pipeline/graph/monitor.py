"""What is happening now: workers tell one small Ray actor, the driver asks it. Nothing here is needed for the results."""

from dataclasses import dataclass
from typing import Any

import ray

from pipeline.graph.history import Point


@dataclass(frozen=True)
class Progress:
    """How far a step is, in its own units."""

    done: float = 0
    total: float = 0
    note: str = ""


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Monitor:
    """Holds the latest progress of each step and the training points the driver has not taken yet."""

    def __init__(self) -> None:
        self._progress: dict[str, Progress] = {}
        self._points: list[tuple[str, Point]] = []

    def started(self, key: str) -> None:
        self._progress[key] = Progress()

    def progress(self, key: str, progress: Progress) -> None:
        self._progress[key] = progress

    def point(self, key: str, point: Point) -> None:
        self._points.append((key, point))

    def take(self) -> tuple[dict[str, Progress], list[tuple[str, Point]]]:
        """Progress of all steps so far, and the points since the last call."""
        points, self._points = self._points, []
        return dict(self._progress), points


@dataclass(frozen=True)
class Listener:
    """A worker's end of the monitor: fire and forget, picklable."""

    actor: Any

    def started(self, key: str) -> None:
        self.actor.started.remote(key)

    def progress(self, key: str, done: float, total: float, note: str) -> None:
        self.actor.progress.remote(key, Progress(done, total, note))

    def point(self, key: str, point: Point) -> None:
        self.actor.point.remote(key, point)
