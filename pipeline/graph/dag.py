"""Steps become a DAG of Ray tasks: each task takes the references of the tasks it depends on, and Ray runs what is ready side by side.

Only paths and keys pass between tasks, never weights. A step that is stored, and all that only it needed, is not in the DAG.
A step that fails takes those that rest on it with it; everything else goes on, and the first failure is raised at the end.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import ray

from foundation.errors import ResourceError
from pipeline.graph.history import Point
from pipeline.graph.monitor import Listener, Monitor, Progress
from pipeline.graph.perform import Performed, perform
from pipeline.step import Step
from pipeline.store import Store

POLL_SECONDS = 0.25
SYSTEM_RETRIES = 3


@dataclass
class Watch:
    """What the driver does while the DAG runs; every call comes from the driver's own thread."""

    check: Callable[[], None] = lambda: None  # raises to stop the run
    on_progress: Callable[[dict[str, Progress]], None] = lambda progress: None
    on_point: Callable[[str, Point], None] = lambda key, point: None
    on_done: Callable[[Step], None] = lambda step: None
    on_failed: Callable[[Step, BaseException], None] = lambda step, error: None


@ray.remote
def _perform(step: Step, store: Store, listener: Listener, *_upstream: Performed) -> Performed:
    return perform(step, store, listener)


def check_resources(steps: Iterable[Step], what: str) -> None:
    """ResourceError if a step asks for more than the connected Ray has in all: it would wait for ever without a word."""
    has = ray.cluster_resources()
    for step in steps:
        for resource, amount in step.demand.items():
            if amount > has.get(resource, 0):
                raise ResourceError(
                    f"{step.key} needs {amount:g} {resource} at one time, but {what} has {has.get(resource, 0):g}; "
                    "lower the workers or GPUs it asks for, or run on a larger cluster (--address)"
                )


def run_dag(steps: dict[str, Step], store: Store, watch: Watch) -> None:
    """Run `steps` (from `plan.needed`) on the connected Ray cluster; raises the first failure after everything that could run has run."""
    monitor: Any = Monitor.remote()  # type: ignore[attr-defined]
    listener = Listener(monitor)
    references: dict[str, Any] = {}
    for key, step in steps.items():
        upstream = [references[required.key] for required in step.inputs if required.key in references]
        options = {"name": key, "max_retries": SYSTEM_RETRIES, **step.ray_options}
        references[key] = _perform.options(**options).remote(step.detached(), store, listener, *upstream)
    watcher = _Watcher(monitor, steps, {reference: key for key, reference in references.items()}, watch)
    try:
        watcher.until_all_ended()
    except BaseException:
        for reference in references.values():
            ray.cancel(reference, force=True, recursive=True)
        raise
    if watcher.failures:
        raise watcher.failures[0]


@dataclass
class _Watcher:
    monitor: Any
    steps: dict[str, Step]
    pending: dict[Any, str]
    watch: Watch
    failures: list[BaseException] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)

    def until_all_ended(self) -> None:
        while self.pending:
            ended, _ = ray.wait(list(self.pending), num_returns=1, timeout=POLL_SECONDS, fetch_local=False)
            self.watch.check()
            self.look()
            for reference in ended:
                self.end(reference)
        self.look()

    def look(self) -> None:
        progress, points = ray.get(self.monitor.take.remote())
        for key, point in points:
            self.watch.on_point(key, point)
        self.watch.on_progress({key: value for key, value in progress.items() if key in self.pending.values()})

    def end(self, reference: Any) -> None:
        key = self.pending.pop(reference)
        step = self.steps[key]
        try:
            ray.get(reference)
        except Exception as error:
            rests_on_failed = any(required.key in self.failed for required in step.inputs)
            self.failed.add(key)
            if not rests_on_failed:
                cause = _cause(error)
                self.failures.append(cause)
                self.watch.on_failed(step, cause)
            return
        self.watch.on_done(step)


def _cause(error: BaseException) -> BaseException:
    """The exception the step raised, out of Ray's wrapping."""
    while isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    return error
