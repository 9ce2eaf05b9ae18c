"""Tracking beside the work: one thread of the driver writes MLflow while Ray runs the graph, and never holds it up.

If MLflow cannot be reached the work goes on: records hold everything, and the mirror is written again at the end of this run or the next.
"""

import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import ResourceError
from foundation.files import write_json_atomic
from pipeline.config.experiment import Built
from pipeline.graph.history import Point
from pipeline.step import Step
from pipeline.store import Store
from pipeline.tracking.backend import sqlite_has_run, tracking_uri

MARKER = "tracking.json"


@dataclass(frozen=True)
class Mirrored:
    """Where a run stands in MLflow."""

    uri: str
    experiment: str
    pipeline_run: str
    compared: tuple[str, ...]  # the last stage's evaluation before and after its merge
    tracks: tuple[str, ...]


class Tracker:
    """Takes events from the driver, writes them from its own thread, and completes the mirror at the end."""

    def __init__(self, built: Built, store: Store) -> None:
        self.built, self.store = built, store
        self.uri = tracking_uri(built.config.tracking.uri, built.workspace)
        self.failure: BaseException | None = None
        self._mirror: Any = None
        self._events: queue.Queue[Callable[[Any], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._write, name="tracking", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        started = time.time()
        self._events.put(lambda mirror: mirror.open(started))
        self._thread.start()

    def point(self, key: str, point: Point) -> None:
        """A training point of a running step."""
        self._events.put(lambda mirror: mirror.point(key, point))

    def done(self, step: Step) -> None:
        """A step is stored."""
        self._events.put(lambda mirror: mirror.step(step))

    def _open(self) -> Any:
        if self._mirror is None:
            from pipeline.tracking.book import Book
            from pipeline.tracking.mirror import Mirror

            experiment = self.built.config.tracking.experiment or self.built.config.name
            book = Book(self.uri, experiment, self.built.workspace / "mlartifacts", self.built.identity[:16])
            self._mirror = Mirror(book, self.built, self.store)
        return self._mirror

    def _write(self) -> None:
        while (event := self._events.get()) is not None:
            if self.failure is None:
                try:
                    event(self._open())
                except Exception as error:
                    self.failure = error  # told at the end, when the mirror is tried again

    def finish(self, status: str, report: Path | None = None) -> Mirrored:
        """Complete the mirror, close the pipeline's run with `status`, and say where it is; ResourceError if MLflow cannot be reached."""
        if self._thread.is_alive():
            self._events.put(None)
            self._thread.join()
        if self.failure is not None:
            self._mirror = None  # what was last sent may have arrived or not: look again
        try:
            place = self._complete(status, report)
        except Exception as error:
            raise ResourceError(
                f"MLflow at {self.uri} could not be written ({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
                f"All results are stored in {self.store.root}; run the same command again to mirror them"
            ) from error
        if status == "FINISHED":
            self.built.run_directory.mkdir(parents=True, exist_ok=True)
            write_json_atomic(self.built.run_directory / MARKER, {"identity": self.built.identity, **place.__dict__})
        return place

    def _complete(self, status: str, report: Path | None) -> Mirrored:
        mirror = self._open()
        began, ended = (time.time(), time.time()) if self._thread.ident else mirror.times()
        pipeline = mirror.open(began)
        mirror.everything()
        if report is not None and report.exists():
            mirror.book.client.log_artifacts(pipeline, str(report), "report")
        mirror.close(status, ended)
        return Mirrored(self.uri, mirror.book.experiment_id, pipeline, tuple(mirror.compared_runs()), tuple(mirror.track_runs()))


def already_mirrored(built: Built) -> Mirrored | None:
    """Where the finished run stands in MLflow, if all of it is there already (asked of SQLite only: servers are always written again)."""
    marker = built.run_directory / MARKER
    if not marker.exists():
        return None
    content = json.loads(marker.read_text())
    uri = tracking_uri(built.config.tracking.uri, built.workspace)
    if content.pop("identity") != built.identity or content["uri"] != uri or not sqlite_has_run(uri, content["pipeline_run"]):
        return None
    compared, tracks = tuple(content["compared"]), tuple(content["tracks"])
    return Mirrored(uri, content["experiment"], content["pipeline_run"], compared, tracks)
