"""Steps become a DAG of Ray tasks: each task takes the references of the tasks it depends on, and Ray runs what is ready side by side.

Only paths and keys pass between tasks, never weights. A step that is stored, and all that only it needed, is not in the DAG.
A step that fails takes those that rest on it with it; everything else goes on, and the first failure is raised at the end.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from foundation.errors import ResourceError
from pipeline.graph.cluster import ASK_SECONDS, Head, HeadGone, gone
from pipeline.graph.history import Point
from pipeline.graph.monitor import Listener, Monitor, Progress
from pipeline.graph.perform import Performed, perform
from pipeline.step import Step
from pipeline.store import Store

POLL_SECONDS = 0.25
WAITING_SECONDS = 60.0
SYSTEM_RETRIES = 3


@dataclass
class Watch:
    """What the driver does while the DAG runs; every call comes from the driver's own thread."""

    check: Callable[[], None] = lambda: None  # raises to stop the run
    on_progress: Callable[[dict[str, Progress]], None] = lambda progress: None
    on_point: Callable[[str, Point], None] = lambda key, point: None
    on_done: Callable[[Step], None] = lambda step: None
    on_waiting: Callable[[str], None] = lambda text: None
    on_failed: Callable[[Step, BaseException], None] = lambda step, error: None
    usage: float = 0  # seconds between two looks at the machine that a step runs on; 0: none


@ray.remote
def _perform(step: Step, store: Store, listener: Listener, usage: float, *_upstream: Performed) -> Performed:
    return perform(step, store, listener, usage)


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
        options = {"name": key, "max_retries": SYSTEM_RETRIES, **step.ray_options, **_room(step)}
        references[key] = _perform.options(**options).remote(step.detached(), store, listener, watch.usage, *upstream)
    watcher = _Watcher(monitor, steps, {reference: key for key, reference in references.items()}, watch)
    try:
        watcher.until_all_ended()
    except HeadGone:
        raise  # there is nobody to tell, and whoever tried would wait
    except BaseException:
        for reference in watcher.pending if ray.is_initialized() else ():
            ray.cancel(reference, recursive=True)  # by force, a task that ends at this moment brings the whole driver down (Ray 2.60)
        raise
    if watcher.failures:
        raise watcher.failures[0]


def _room(step: Step) -> dict[str, float]:
    """For a step that only coordinates others (it asks for no processor): the main memory that Ray sets aside for it.

    The share of a node's memory that its workers have of the node's processors, so that about as many are started as can work at one time,
    and one that gets ready meanwhile. Without it every ready one would start its processes and wait.
    """
    if step.ray_options.get("num_cpus") != 0 or not step.demand.get("CPU"):
        return {}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("memory")]
    shares = [node["memory"] * min(1.0, step.demand["CPU"] / (node.get("CPU", 0) + 1)) for node in nodes]
    return {"memory": int(max(shares))} if shares else {}


@dataclass
class _Watcher:
    monitor: Any
    steps: dict[str, Step]
    pending: dict[Any, str]
    watch: Watch
    failures: list[BaseException] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)
    idle_since: float = field(default_factory=time.monotonic)
    head: Head = field(default_factory=lambda: Head(ray.get_runtime_context().gcs_address))

    def until_all_ended(self) -> None:
        while self.pending:
            with connection():
                ended, _ = ray.wait(list(self.pending), num_returns=1, timeout=POLL_SECONDS, fetch_local=False)
            self.watch.check()
            self.look()
            for reference in ended:
                self.end(reference)
        self.look()

    def look(self) -> None:
        progress, points = self.taken()
        for key, point in points:
            self.watch.on_point(key, point)
        running = {key: value for key, value in progress.items() if key in self.pending.values()}
        self.watch.on_progress(running)
        if running or not self.pending:
            self.idle_since = time.monotonic()
        elif time.monotonic() - self.idle_since > WAITING_SECONDS:
            self.idle_since = math.inf  # said once
            self.watch.on_waiting(self.waiting())

    def taken(self) -> tuple[dict[str, Progress], list[tuple[str, Point]]]:
        """What the monitor was told; HeadGone once the head is away, without which it may never answer."""
        found: tuple[dict[str, Progress], list[tuple[str, Point]]]
        with connection():
            asked = self.monitor.take.remote()
            while True:
                if not self.head.is_there():
                    raise HeadGone("Ray's head does not answer any more; run the same command again to go on")
                try:
                    found = ray.get(asked, timeout=ASK_SECONDS)
                    return found
                except ray.exceptions.GetTimeoutError:
                    self.watch.check()

    def waiting(self) -> str:
        """What nothing has started for, and what the cluster has: Ray itself waits without a word."""
        needs = {name: max(self.steps[key].demand.get(name, 0) for key in self.pending.values()) for name in ("CPU", "GPU")}
        has = ray.cluster_resources()
        asked = ", ".join(f"{amount:g} {name} (the cluster has {has.get(name, 0):g} now)" for name, amount in needs.items())
        return f"waiting for the cluster for {WAITING_SECONDS:.0f} s: the steps that are ready ask for up to {asked}"

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
                if cause is not error and cause.__cause__ is None:
                    cause.__cause__ = error  # Ray's wrapping holds the worker's traceback
                self.failures.append(cause)
                self.watch.on_failed(step, cause)
            return
        self.watch.on_done(step)


@contextmanager
def connection() -> Iterator[None]:
    """ResourceError where the connection to Ray ends, as Ray says it and as its client does."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise gone("Ray is gone", error) from error
    except ConnectionError as error:
        raise HeadGone(str(gone("Ray is gone", error))) from error


def _cause(error: BaseException) -> BaseException:
    """The exception the step raised, out of Ray's wrapping; ResourceError where Ray lost the worker that ran it."""
    while isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    if isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError):
        first = str(error).strip().splitlines()[0]
        return ResourceError(f"Ray lost a worker ({type(error).__name__}: {first}); run the same command again to go on")
    return error
