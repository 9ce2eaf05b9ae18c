"""Work items handed to Ray actors: the shards of a merge, parts of records to be measured, parts of an evaluation.

Actors hold nothing that an item's outcome rests on, so one that dies is restarted and its items done again to the same bytes. The number of
actors changes no byte.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from foundation.errors import ResourceError
from mergers import InProcess, Merger, Plan, Source, execute, plan_merge, read_checkpoint
from mergers.checkpoints.header import read_header
from mergers.engine.execute import Executor
from pipeline.step import Outcome

RESTARTS = 5  # of an actor, and tries of an item: what kills its process every time is told, not repeated for ever
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
        waiting = list(reversed(items))
        running: dict[Any, Any] = {}
        completed = False

        def hand_out(actor: Any) -> None:
            if waiting:
                running[actor.work.remote(function, waiting.pop())] = actor

        try:
            for actor in self.ready * IN_FLIGHT:
                hand_out(actor)
            while waiting or running:
                (ended,), _ = ray.wait([*running, *(self.starting if waiting else ())], num_returns=1)
                if ended in self.starting:  # an actor gets items once it is up: there may be no processor for it before others end
                    _result(ended)
                    actor = self.starting.pop(ended)
                    self.ready.append(actor)
                    for _ in range(IN_FLIGHT):
                        hand_out(actor)
                else:
                    hand_out(running.pop(ended))
                    yield _result(ended)
            completed = True
        finally:
            if not (completed and self.keeps):
                self.dismiss()

    def hire(self, items: int) -> None:
        """Start as many actors as are lacking."""
        import ray

        worker = ray.remote(num_cpus=self.threads, num_gpus=self.gpus, max_restarts=RESTARTS, max_task_retries=RESTARTS)(_Worker)
        for _ in range(min(self.actors, items) - len(self.ready) - len(self.starting)):
            actor = worker.remote(self.threads)
            self.starting[actor.ready.remote()] = actor

    def dismiss(self) -> None:
        """End all actors, whatever they do."""
        import ray

        for actor in (*self.ready, *self.starting.values()):
            ray.kill(actor)
        self.ready, self.starting = [], {}


class _Worker:
    """One worker: so many torch threads, no state of its own."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def ready(self) -> None:
        """Answers once the actor is up."""

    def work(self, function: Callable[[Item], Result], item: Item) -> Result:
        return function(item)


def _result(reference: Any) -> Any:
    """What an actor returned, or the error it raised; ResourceError where Ray lost the actor for good."""
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause or error from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise ResourceError(f"Ray lost an actor ({type(error).__name__}: {reason}); free memory, or use fewer") from error


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

    An actor takes two seconds to start, which a model of a few megabytes is merged in many times over.
    """
    with executor_for(actors if len(plan.items) > 1 else 0) as executor:
        result = execute(plan, executor, progress)
    figures = {key: value for key, value in asdict(result).items() if key not in ("output", "files", "digest")}
    return Outcome(plan.output, metrics=figures, files=result.files)
