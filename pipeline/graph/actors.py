"""Merges on Ray: work items are handed to stateless actors, which read their ranges and write their own bytes.

Actors hold nothing, so one that dies is restarted and its item done again to the same bytes. The number of actors changes no byte.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mergers import InProcess, ItemOutcome, Merger, Source, WorkItem, execute, plan_merge, read_checkpoint
from mergers.execute import Executor
from pipeline.step import Outcome

RESTARTS = 5  # of an actor, and tries of an item: what kills its process every time is told, not repeated for ever
IN_FLIGHT = 2  # items an actor has at a time: one in work, one ready


@dataclass(frozen=True)
class RayActors:
    """Runs work items on `actors` Ray actors (never more than there are items)."""

    actors: int

    def map(self, function: Callable[[WorkItem], ItemOutcome], items: Sequence[WorkItem]) -> Iterator[ItemOutcome]:
        """The outcomes in order of completion; when it ends, however it ends, no actor is left."""
        import ray

        worker = ray.remote(num_cpus=1, max_restarts=RESTARTS, max_task_retries=RESTARTS)(_Worker)
        pool = [worker.remote() for _ in range(min(self.actors, len(items)))]
        starting = {actor.ready.remote(): actor for actor in pool}
        waiting = list(reversed(items))
        running: dict[Any, Any] = {}

        def hand_out(actor: Any) -> None:
            if waiting:
                running[actor.work.remote(function, waiting.pop())] = actor

        try:
            while waiting or running:
                (ended,), _ = ray.wait([*running, *(starting if waiting else ())], num_returns=1)
                if ended in starting:  # an actor gets items once it is up: there may be no processor for it before others end
                    ray.get(ended)
                    actor = starting.pop(ended)
                    for _ in range(IN_FLIGHT):
                        hand_out(actor)
                else:
                    hand_out(running.pop(ended))
                    yield _result(ended)
        finally:
            for actor in pool:
                ray.kill(actor)


class _Worker:
    """One merge worker: a single torch thread, no state."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)

    def ready(self) -> None:
        """Answers once the actor is up."""

    def work(self, function: Callable[[WorkItem], ItemOutcome], item: WorkItem) -> ItemOutcome:
        return function(item)


def _result(reference: Any) -> ItemOutcome:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause or error from error


def executor_for(actors: int) -> Executor:
    """So many Ray actors, or this process for 0."""
    return RayActors(actors) if actors else InProcess()


def merge_step(
    merger: Merger,
    places: Mapping[str, Path],
    origins: Mapping[str, str],
    output: Path,
    actors: int,
    progress: Callable[[float, float], None],
) -> Outcome:
    """Merge the checkpoints at `places` into `output`; `origins` tell the model card what each source is."""
    sources = [Source(name, read_checkpoint(place), origin=origins[name]) for name, place in places.items()]
    plan = plan_merge(merger, sources, output, replace=True)
    result = execute(plan, executor_for(actors), progress)
    figures = {key: value for key, value in asdict(result).items() if key not in ("output", "files", "digest")}
    return Outcome(output, metrics=figures, files=result.files)
