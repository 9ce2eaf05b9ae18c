"""The events of a journal carried out on a mirror, in their order: any number of times, with the same outcome.

Training points of one step become one request. What MLflow refuses for good is looked for value by value, kept beside the journal with the
reason, and told at the end; everything else goes on.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from foundation.errors import MergelineError
from pipeline.config.experiment import EXPERIMENT_FILE
from pipeline.graph.history import Point
from pipeline.tracking.backend import reason_of, without_secrets
from pipeline.tracking.environment import ENVIRONMENT_FILE
from pipeline.tracking.mirror import Mirror
from pipeline.tracking.writing.journal import ROOM, Event, Kind
from pipeline.tracking.writing.written import Mirrored, read_refused, write_refused

LASTING = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")
"""MLflow's words for what it will not take the next time either."""


def lasting(error: Exception) -> bool:
    """Whether trying again is of no use: MLflow says so, or the fault is in what was to be written. A server that is away comes back."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in LASTING
    return isinstance(error, MergelineError | LookupError | TypeError | ValueError) and not isinstance(error, OSError)


class Refusals:
    """What MLflow refused for good: refused again by a book that was opened anew, for the first time may come of a run that is gone."""

    def __init__(self, run_directory: Path, keep: bool) -> None:
        self.run_directory = run_directory
        self.known = read_refused(run_directory) if keep else {}
        self._doubtful: set[str] = set()
        if not keep:
            write_refused(run_directory, {})

    def attempt(self, what: str, part: Callable[[], object]) -> None:
        """Do a part of the work; raises what may pass, and notes what lasts."""
        try:
            part()
        except Exception as error:
            self.doubt(what, error)
            self._note(what, error)
        else:
            self._doubtful.discard(what)
            if self.known.pop(what, None) is not None:
                write_refused(self.run_directory, self.known)

    def points(self, mirror: Mirror, key: str, points: Sequence[Point]) -> None:
        """Write points of a step; of points that MLflow refuses all others are written."""
        what = f"points of {key}"
        try:
            mirror.points(key, points)
        except Exception as error:
            self.doubt(what, error)
            self._halves(mirror, key, [Point(each.step, each.time, {name: each.values[name]}) for each in points for name in each.values])
        else:
            self._doubtful.discard(what)

    def doubt(self, what: str, error: Exception) -> None:
        """Raise what may pass, and what was refused for the first time."""
        if not lasting(error) or what not in self._doubtful:
            self._doubtful |= {what} if lasting(error) else set()
            raise error

    def _halves(self, mirror: Mirror, key: str, points: Sequence[Point]) -> None:
        try:
            mirror.points(key, points)
        except Exception as error:
            if not lasting(error):
                raise
            middle = len(points) // 2
            if middle:
                self._halves(mirror, key, points[:middle])
                self._halves(mirror, key, points[middle:])
            else:
                self._note(f"{next(iter(points[0].values))} of {key} at {points[0].step}", error)

    def _note(self, what: str, error: Exception) -> None:
        self.known[what] = reason_of(error)
        write_refused(self.run_directory, self.known)


class Replay:
    """Carries out events on one mirror. Those of another experiment that had the run's name before are passed over."""

    def __init__(self, mirror: Mirror, refusals: Refusals, told: Callable[[], None]) -> None:
        self.mirror, self.refusals, self.told = mirror, refusals, told
        self.ours = True

    def apply(self, events: Sequence[Event]) -> None:
        """Write what the events say."""
        points: dict[str, list[Point]] = {}
        for event in events:
            if event.kind is Kind.OPENED:
                self.ours = event.identity == self.mirror.built.identity
            if not self.ours or (event.key and event.key not in self.mirror.steps):  # of another experiment, or damaged
                continue
            if event.kind is Kind.POINT:
                points.setdefault(event.key, []).append(event.point)
                continue
            self._flush(points)
            if event.kind is Kind.OPENED:
                self.mirror.open(event.time)
            elif event.kind is Kind.DONE:
                self._part(f"step {event.key}", partial(self.mirror.step, self.mirror.steps[event.key]))
            else:
                self.mirror.close(event.status, event.time)
        self._flush(points)

    def finish(self, closed: Event) -> Mirrored:
        """Write all that is stored, the report and what the run was made with, and close the run as its last event says."""
        mirror, book = self.mirror, self.mirror.book
        mirror.everything(self._part)
        pipeline = mirror.pipeline_run()
        self._part("artifacts", partial(self._artifacts, pipeline, closed.status))
        mirror.close(closed.status, closed.time)
        compared, tracks = tuple(mirror.compared_runs()), tuple(mirror.track_runs())
        return Mirrored(without_secrets(book.uri), book.experiment_id, pipeline, compared, tracks)

    def _flush(self, points: dict[str, list[Point]]) -> None:
        for key, told in points.items():
            self.refusals.points(self.mirror, key, told)
        points.clear()

    def _part(self, what: str, part: Callable[[], object]) -> None:
        self.refusals.attempt(what, part)
        self.told()

    def _artifacts(self, run: str, status: str) -> None:
        client, home = self.mirror.book.client, self.mirror.built.run_directory
        if status == "FINISHED" and (home / "report").is_dir():
            client.log_artifacts(run, str(home / "report"), "report")
        if (home / EXPERIMENT_FILE).exists():
            client.log_text(run, without_secrets((home / EXPERIMENT_FILE).read_text()), EXPERIMENT_FILE)
        if (home / ROOM / ENVIRONMENT_FILE).exists():
            client.log_artifact(run, str(home / ROOM / ENVIRONMENT_FILE))
