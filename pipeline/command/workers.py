"""Who carries out the work items of a command: Ray actors, processes of this machine, or this process."""

import os
from contextlib import ExitStack

from foundation.errors import ResourceError
from mergers import Executor, InProcess

MOST_PROCESSES = 8
"""Processes of a merge without Ray, if there are as many processors: beyond them the disk is the limit."""


def hire(stack: ExitStack, items: int, actors: int, processes: int | None, device: str = "cpu", torch: bool = True) -> Executor:
    """The executor for so many items, given back by `stack`. `torch` says whether processes will need it."""
    if actors:
        from pipeline.graph.actors import RayActors
        from pipeline.graph.cluster import connected

        stack.enter_context(connected())
        if device != "cpu":
            check_gpus()
        return stack.enter_context(RayActors(actors, gpus=0 if device == "cpu" else 1))
    if processes == 1 or device != "cpu":
        return InProcess()
    from mergers.engine.processes import Processes

    most = processes or min(MOST_PROCESSES, len(os.sched_getaffinity(0)))
    return stack.enter_context(Processes(max(1, min(most, items)), torch))


def check_gpus() -> None:
    """Raise ResourceError if no node has a GPU: actors that ask for one would wait for ever."""
    import ray

    if not ray.cluster_resources().get("GPU"):
        raise ResourceError("device is cuda, but no node of this Ray cluster has a GPU; leave device at cpu, or add such a node")
