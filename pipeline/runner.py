"""Run an experiment: plan, run what is missing on Ray, then the view, the report, MLflow and the tables.

The run holds a lock on its directory: a second `run` of the same name is refused. Other experiments may use the store at the same time.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import yaml
from filelock import FileLock, Timeout
from rich.console import Console

from foundation.errors import Interrupted, ResourceError
from foundation.files import write_atomic
from pipeline.command.terminal import say
from pipeline.config.experiment import EXPERIMENT_FILE, Built
from pipeline.plan import needed
from pipeline.results import rows, write_rows
from pipeline.step import Step
from pipeline.store import Store
from pipeline.titles import step_titles
from pipeline.tracking.admission import check_tracking
from pipeline.tracking.tracker import Mirrored, Tracker, already_mirrored
from pipeline.view import link_run

if TYPE_CHECKING:
    from pipeline.report.paired import PairedScores

SEEN_SECONDS = 90


@dataclass(frozen=True)
class Finished:
    """What a run came to. `mirrored` is None where MLflow lacks some of it; `lacking` says what and what to do.

    `paired`: what its report found on the same samples; None where there was no report to write.
    """

    steps_run: int
    report: Path
    mirrored: Mirrored | None
    paired: "PairedScores | None" = None
    lacking: str = ""


def run(built: Built, console: Console, address: str | None = None, cpus: int | None = None) -> Finished:
    """Bring the experiment to its end, from wherever it stands. Raises what failed first, after all that could run has run."""
    store = Store(built.workspace / "store")
    with alone(built.run_directory), kept_in_objects(built, store) as push:
        write_atomic(built.run_directory / EXPERIMENT_FILE, yaml.safe_dump(built.resolved, sort_keys=False, allow_unicode=True))
        write_rows(built.run_directory, rows(built.milestones, built.config.recipe), built.identity)
        steps = needed(built.targets, store)
        console.print(f"{built.name}: {len(steps)} of {len(built.steps)} steps to run", highlight=False)
        mirrored = already_mirrored(built) if not steps else None
        report = built.run_directory / "report"
        if mirrored is not None:
            link_run(built.run_directory, built.milestones, store)
            return Finished(0, report, mirrored)
        check_tracking(built)
        tracker = Tracker(built, store)
        try:
            if steps:
                tracker.start()
                _run_steps(built, store, steps, tracker, console, address, cpus, push)
                _all_seen(built, store)
            link_run(built.run_directory, built.milestones, store)
            paired = _write_report(built, store, report)
        except BaseException as error:
            if steps:
                _end_failed(tracker, error, console)
                link_run(built.run_directory, built.milestones, store)
            raise
        tracked = tracker.finish("FINISHED", partial(say, console))
    if tracked.lacking and built.config.tracking.required:
        raise ResourceError(f"{tracked.lacking} (tracking.required is true; the report is in {report})")
    return Finished(len(steps), report, tracked.mirrored, paired, tracked.lacking)


def _run_steps(
    built: Built,
    store: Store,
    steps: dict[str, Step],
    tracker: Tracker,
    console: Console,
    address: str | None,
    cpus: int | None,
    push: Callable[[], None],
) -> None:
    from pipeline.command.display import Display
    from pipeline.graph.cluster import connected
    from pipeline.graph.dag import Watch, check_resources, run_dag
    from pipeline.graph.perform import perform
    from pipeline.graph.warm import warm_up

    titles = step_titles(built.milestones)
    with connected(address, cpus), stopping() as check, Display(console, titles, len(steps), store) as display:

        def on_done(step: Step) -> None:
            tracker.done(step)
            display.finished(step)
            push()

        if (address or os.environ.get("RAY_ADDRESS") or "local") == "local":  # a cluster may grow, this machine will not
            check_resources(steps.values(), "this machine")
            warm_up(steps)
        usage = built.config.tracking.usage
        here = [step for step in steps.values() if store.mirror is not None and step.reads_this_machine]
        for step in here:  # no other node has what it reads
            perform(step, store, usage=usage)
            on_done(step)
            check()
        run_dag(
            {key: step for key, step in steps.items() if step not in here},
            store,
            Watch(check, display.progress, tracker.point, on_done, display.line, display.failed, usage),
        )


@contextmanager
def kept_in_objects(built: Built, store: Store) -> Iterator[Callable[[], None]]:
    """Where nodes share an object store alone: see that it is there, go on with the run's files, and put them there, also on the way.

    Gives what to call now and then. ResourceError where the object store is not as it must be.
    """
    if store.mirror is None:
        yield lambda: None
        return
    from pipeline.objects.probe import probe
    from pipeline.objects.runs import RunFiles

    probe(store.mirror.uri)
    files = RunFiles(store.mirror.uri, built.run_directory)
    files.bring()
    try:
        yield files.push_at_times
    except BaseException:
        with suppress(ResourceError):  # what went wrong first is told
            files.push()
        raise
    files.push()


def _end_failed(tracker: Tracker, error: BaseException, console: Console) -> None:
    """Close the run in MLflow as what became of it; what is not written there is said with the error."""
    status = "KILLED" if isinstance(error, Interrupted | KeyboardInterrupt) else "FAILED"
    if lacking := tracker.finish(status, partial(say, console)).lacking:
        error.add_note(lacking)


def _all_seen(built: Built, store: Store) -> None:
    """Wait until this machine sees every record: a network file system may show other nodes' files late. ResourceError if it never does."""
    deadline = time.monotonic() + SEEN_SECONDS
    while missing := needed(built.targets, store):
        if time.monotonic() > deadline:
            raise ResourceError(
                f"{next(iter(missing))} is done, but its files are not seen here at {store.root}; is that path shared by all nodes?"
            )
        time.sleep(1)


def _write_report(built: Built, store: Store, directory: Path) -> "PairedScores | None":
    from pipeline.reports import report_of

    return report_of(built.run_directory, rows(built.milestones, built.config.recipe), store, directory).paired


@contextmanager
def alone(run_directory: Path) -> Iterator[None]:
    """Hold the run's directory; ResourceError if another process runs the same experiment."""
    run_directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ResourceError(
            f"{run_directory} is in use: this experiment runs already. Wait for it, or give this one another name (name=...)"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def stopping() -> Iterator[Callable[[], None]]:
    """Gives a check that raises `Interrupted` once Ctrl-C, SIGTERM or SIGUSR1 (Slurm's notice) has come; a second signal acts as before.

    The handler itself only takes note: an exception out of it could strike inside Ray's own code.
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    def check() -> None:
        if received:
            name = signal.Signals(received[0]).name
            raise Interrupted(f"stopped by {name}; all finished steps are stored, run the same command again to go on")

    for number in before:
        signal.signal(number, note)
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
