"""One merge without its process: planned and carried out in here, on processes or warm Ray actors, with or without the NaN gate.

    python -m benchmarks.alone workers DIRECTORY METHOD REPETITIONS
    python -m benchmarks.alone gate DIRECTORY METHOD REPETITIONS

Each is a process of its own, which prints its result as JSON in its last line.
"""

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contenders import METHODS, sources_of
from benchmarks.contest import warm
from mergers import Executor, InProcess, Merger, Plan, Source, WeightedAverage, execute, plan_merge, read_checkpoint
from mergers.engine.processes import Processes
from mergers.methods.dare import DareTies
from mergers.methods.slerp import Slerp
from mergers.methods.task_arithmetic import TaskArithmetic
from mergers.methods.ties import TiesPerTensor

COUNTS = (1, 2, 4)
MERGERS: dict[str, Merger] = {
    "linear": WeightedAverage((0.3, 0.7)),
    "task_arithmetic": TaskArithmetic((0.6, 0.4)),
    "slerp": Slerp(0.3),
    "dare_ties": DareTies(density=0.5, weights=(0.6, 0.4)),
    "ties": TiesPerTensor(density=0.5, weights=(0.6, 0.4)),
}
"""The merges of `contenders.METHODS`, as this project's own objects."""


@dataclass
class Timed:
    """An executor that notes how long its items took in all: the merge without layout, digests' ends and publishing."""

    executor: Executor
    seconds: float = 0.0

    def map(self, function: Any, items: Sequence[Any]) -> Iterator[Any]:
        """The outcomes of the executor within."""
        began = time.monotonic()
        yield from self.executor.map(function, items)
        self.seconds += time.monotonic() - began


def on_workers(directory: Path, method: str, repetitions: int) -> dict[str, Any]:
    """Kind and number of workers -> median seconds of the items, least of these, and median seconds of the whole `execute`.

    All take turns; the first turn is not counted.
    """
    from pipeline.graph.actors import RayActors
    from pipeline.graph.cluster import connected

    with ExitStack() as stack:
        executors: dict[str, Executor] = {f"{count} processes": stack.enter_context(Processes(count)) for count in COUNTS}
        stack.enter_context(connected(cpus=sum(COUNTS)))  # after the processes, which are forked
        executors |= {f"{count} actors": stack.enter_context(RayActors(count)) for count in COUNTS}
        runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in executors}
        for repetition in range(repetitions + 1):
            for name, executor in executors.items():
                found = carry_out(directory, method, executor)
                if repetition:
                    runs[name].append(found)
    return {
        name: {"items": median(run[0] for run in found), "least": min(run[0] for run in found), "execute": median(run[1] for run in found)}
        for name, found in runs.items()
    }


def with_and_without_gate(directory: Path, method: str, repetitions: int) -> dict[str, Any]:
    """Median seconds of the items, and CPU seconds of the whole, on one thread, with the NaN gate and without, in turn."""
    runs: dict[str, list[tuple[float, float, float]]] = {"with": [], "without": []}
    for repetition in range(repetitions + 1):
        for name, found in runs.items():
            measured = carry_out(directory, method, InProcess(1), allow_nonfinite=name == "without")
            if repetition:
                found.append(measured)
    return {name: {"items": median(run[0] for run in found), "cpu": median(run[2] for run in found)} for name, found in runs.items()}


def carry_out(directory: Path, method: str, executor: Executor, **options: Any) -> tuple[float, float, float]:
    """Plan and execute once, from a warm page cache with nothing to flush: seconds of the items, seconds and CPU seconds of `execute`."""
    output = directory / "out-alone"
    shutil.rmtree(output, ignore_errors=True)
    warm(sources_of(METHODS[method], directory))
    os.sync()
    plan = plan_of(directory, method, output, **options)
    timed = Timed(executor)
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    execute(plan, timed)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    shutil.rmtree(output)
    return timed.seconds, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def plan_of(directory: Path, method: str, output: Path, **options: Any) -> Plan:
    """The plan of one of the benchmark's merges."""
    names = METHODS[method].models
    merger = MERGERS[method]
    base = METHODS[method].base if merger.base.value == "required" else None
    sources = [Source(name, read_checkpoint(directory / name)) for name in names]
    return plan_merge(merger, sources, output, base=Source(base, read_checkpoint(directory / base)) if base else None, **options)


def main() -> None:
    """Print the result that the arguments ask for."""
    act = {"workers": on_workers, "gate": with_and_without_gate}[sys.argv[1]]
    print(json.dumps(act(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))


if __name__ == "__main__":
    main()
