"""Who carries out the work items of a command: Ray actors, processes of this machine, or this process."""

import os
from contextlib import ExitStack

from mergers import Executor, InProcess

MOST_PROCESSES = 8


def hire(stack: ExitStack, items: int, actors: int, processes: int | None, device: str = "cpu") -> Executor:
    """The executor for so many items, given back by `stack`."""
    if actors:
        from pipeline.graph.actors import RayActors
        from pipeline.graph.cluster import connected

        stack.enter_context(connected())
        return stack.enter_context(RayActors(actors, gpus=0 if device == "cpu" else 1))
    count = min(processes or min(MOST_PROCESSES, len(os.sched_getaffinity(0))), items)
    if count <= 1 or device != "cpu":
        return InProcess()
    from mergers.engine.processes import Processes

    return stack.enter_context(Processes(count))
