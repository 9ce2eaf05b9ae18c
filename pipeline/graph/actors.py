"""Work items handed to Ray actors: the shards of a merge, parts of records to be measured, parts of an evaluation.

Actors hold nothing that an item's outcome rests on, so one that dies, or whose machine goes away, is replaced, and its items are done again
to the same bytes by whichever is free. The number of actors changes no byte.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from foundation.errors import ResourceError
from mergers import InProcess, Merger, Plan, Source, execute, plan_merge, read_checkpoint
from mergers.checkpoints.header import read_header
from mergers.engine.by_file import execute_by_file
from mergers.engine.execute import Executor
from pipeline.graph.usage import Sampling, sampling
from pipeline.objects.attempt import Held
from pipeline.objects.presence import DeliverFile, Presence, held_files, presence
from pipeline.step import Outcome

RETRIES = 5  # of an item, and of starting an actor: what kills its process every time is told, not repeated for ever
IN_FLIGHT = 2  # items an actor has at a time: one in work, one ready

Item = TypeVar("Item")
Result = TypeVar("Result")


class RayActors:
    """Runs work items on `actors` Ray actors (never more than there are items), each with so many GPUs and CPU threads.

    Used as a context manager, its actors stay up from one `map` to the next (a merge of several passes, several merges); else each `map`
    has its own.
    """

    def __init__(self, actors: int, gpus: float = 0, threads: int = 1) -> None:
        self.actors = actors
        self.gpus = gpus
        self.threads = threads
        self.keeps = False
        self.starting: dict[Any, Any] = {}
        self.ready: list[Any] = []
        self.hired = 0
        self.failed_starts = 0

    def __enter__(self) -> "RayActors":
        self.keeps = True
        return self

    def __exit__(self, *_: object) -> None:
        self.keeps = False
        self.dismiss()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """The outcomes in order of completion; when it ends, however it ends, no item is running any more."""
        import ray

        self.hire(len(items))
        waiting = list(reversed(range(len(items))))
        running: dict[Any, tuple[Any, int]] = {}
        losses: Counter[int] = Counter()
        completed = False

        def hand_out() -> None:
            """Give each actor as many items as it may have, evenly."""
            busy = Counter(actor for actor, _ in running.values())
            for actor in self.ready * IN_FLIGHT:
                if waiting and busy[actor] < IN_FLIGHT:
                    number = waiting.pop()
                    running[actor.work.remote(function, items[number])] = actor, number
                    busy[actor] += 1

        try:
            while waiting or running:
                hand_out()
                (ended,), _ = ray.wait([*running, *(self.starting if waiting else ())], num_returns=1)
                if ended in self.starting:  # an actor gets items once it is up: there may be no processor for it before others end
                    self.welcome(ended)
                    continue
                actor, number = running.pop(ended)
                try:
                    outcome = _result(ended)
                except _Lost:
                    losses[number] += 1
                    if losses[number] > RETRIES:
                        raise
                    waiting.append(number)
                    self.replace(actor, len(waiting) + len(running))
                    continue
                hand_out()
                yield outcome
            completed = True
        finally:
            if not (completed and self.keeps):
                self.dismiss()

    def welcome(self, started: Any) -> None:
        """Count an actor as ready; start another in place of one that died before it was, unless that happens again and again."""
        actor = self.starting.pop(started)
        try:
            _result(started)
        except _Lost:
            self.failed_starts += 1
            if self.failed_starts > RETRIES:
                raise
            self.replace(actor, self.actors)
        else:
            self.ready.append(actor)

    def replace(self, lost: Any, items: int) -> None:
        """Start another actor in place of one that was lost. It is ended for good: were it only out of reach, it must not come back."""
        import ray

        ray.kill(lost)
        self.ready = [actor for actor in self.ready if actor != lost]
        self.hire(items)

    def hire(self, items: int) -> None:
        """Start as many actors as are lacking."""
        import ray

        worker = ray.remote(num_cpus=self.threads, num_gpus=self.gpus)(_Worker)
        inputs = presence()
        for _ in range(min(self.actors, items) - len(self.ready) - len(self.starting)):
            actor = worker.remote(self.threads, sampling(), f"actor_{self.hired}", inputs)
            self.hired += 1
            self.starting[actor.ready.remote()] = actor

    def dismiss(self) -> None:
        """End all actors, whatever they do."""
        import ray

        for actor in (*self.ready, *self.starting.values()):
            ray.kill(actor)
        self.ready, self.starting, self.hired = [], {}, 0


class _Worker:
    """One worker: so many torch threads, no state of its own."""

    def __init__(self, threads: int, sampling: Sampling, role: str, inputs: Presence | None) -> None:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # of a torch that is loaded later
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        self.inputs = inputs
        self.usage = sampling.of(role).__enter__()  # until the process ends

    def ready(self) -> None:
        """Answers once the actor is up, and what the step has taken up is on its node."""
        if self.inputs is not None:
            self.inputs.arrive()

    def work(self, function: Callable[[Item], Result], item: Item) -> Result:
        outcome = function(item)
        self.usage.item_done()
        return outcome


class _Lost(ResourceError):
    """An actor died, or is out of reach."""


def _result(reference: Any) -> Any:
    """What an actor returned, or the error it raised; _Lost where Ray lost the actor."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause or error from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise _Lost(f"Ray lost an actor ({type(error).__name__}: {reason}); free memory, or use fewer") from error


def executor_for(actors: int) -> AbstractContextManager[Executor]:
    """So many Ray actors, or this process for 0."""
    return RayActors(actors) if actors else nullcontext(InProcess())


def merge_step(
    merger: Merger,
    places: Mapping[str, tuple[Path, str]],
    base: tuple[Path, str] | None,
    output: Path,
    actors: int,
    progress: Callable[[float, float], None],
    statistics: Mapping[str, Path] | None = None,
) -> Outcome:
    """Merge checkpoints into `output`. Of each source, by name, and of the base: where it lies and, for the model card, what it is.

    `statistics`: the name of a source -> the file of what was measured on it.
    """
    measured = {name: read_header(place) for name, place in (statistics or {}).items()}
    sources = [
        Source(name, read_checkpoint(place), origin=origin, statistics=measured.get(name, {})) for name, (place, origin) in places.items()
    ]
    anchor = None if base is None else Source("base", read_checkpoint(base[0]), origin=base[1])
    return carry_out(plan_merge(merger, sources, output, base=anchor, replace=True), actors, progress)


def carry_out(plan: Plan, actors: int, progress: Callable[[float, float], None]) -> Outcome:
    """The merged checkpoint, by so many actors or in this process for 0, and where a single work item leaves nothing to share.

    An actor takes two seconds to start, which a model of a few megabytes is merged in many times over. Where actors share no disk with this
    process, each writes whole files of the output.
    """
    there: Mapping[str, Held] = {}
    shared = presence()
    actors = actors if len(plan.items) > 1 else 0
    if shared is not None and actors:
        with RayActors(actors) as workers:
            deliver = DeliverFile(shared.attempt, shared.directory, plan.output.name)
            result = execute_by_file(plan, workers, shared.directory / "work", deliver, progress)
        there = held_files(result.files, {file.name: file.nbytes for file in plan.files}, plan.output.name)
    else:
        with executor_for(actors) as executor:
            result = execute(plan, executor, progress)
    figures = {key: value for key, value in asdict(result).items() if key not in ("output", "files", "digest")}
    return Outcome(plan.output, metrics=figures, files=result.files, there=there)
