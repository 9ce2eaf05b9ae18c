"""Who is asked: examiners in this process, or one on every node of a Ray cluster. Who does not answer in time is named, with the reason."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pipeline.doctor.probe import Examiner

START_SECONDS = 60.0
"""For a node's first answer: Ray starts a process for it."""

Question = tuple[Any, ...]
"""The name of one of `Examiner`'s methods, then its arguments."""


class Nodes(Protocol):
    """Examiners by name, asked side by side. `lost`: why a node has stopped to answer; it is asked nothing more."""

    lost: dict[str, str]

    @property
    def names(self) -> Sequence[str]:
        """Those that answer."""

    def ask(self, questions: Mapping[str, Question], seconds: float) -> dict[str, Any]:
        """Node -> answer. A node that fails, or takes longer than so many seconds, is lost and not among them."""


class Here:
    """Examiners in this process, one thread each: how one machine is examined."""

    def __init__(self, examiners: Mapping[str, Examiner]) -> None:
        self.examiners = dict(examiners)
        self.lost: dict[str, str] = {}

    @property
    def names(self) -> Sequence[str]:
        return [name for name in self.examiners if name not in self.lost]

    def ask(self, questions: Mapping[str, Question], seconds: float) -> dict[str, Any]:
        answers = {}
        with ThreadPoolExecutor(max(len(questions), 1)) as threads:
            asked = {name: threads.submit(getattr(self.examiners[name], what), *given) for name, (what, *given) in questions.items()}
            for name, future in asked.items():
                try:
                    answers[name] = future.result(seconds)
                except (OSError, TimeoutError) as error:
                    self.lost[name] = f"{type(error).__name__}: {error}"
        return answers


class RayNodes:
    """An examiner on every living node of the connected cluster, in an actor that asks for no processor."""

    def __init__(self, workspace: Path, directory: Path) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        living = sorted((node for node in ray.nodes() if node["Alive"]), key=lambda node: (node["NodeManagerAddress"], node["NodeID"]))
        self.resources = dict(zip(node_names(living), (node["Resources"] for node in living), strict=True))
        examiner = ray.remote(num_cpus=0, max_restarts=0)(Examiner)
        self.actors = {}
        self.lost: dict[str, str] = {}
        for name, node in zip(self.resources, living, strict=True):
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            self.actors[name] = examiner.options(scheduling_strategy=there).remote(name, str(workspace), str(directory))

    @property
    def names(self) -> Sequence[str]:
        return [name for name in self.actors if name not in self.lost]

    def ask(self, questions: Mapping[str, Question], seconds: float) -> dict[str, Any]:
        import ray

        asked = {getattr(self.actors[name], what).remote(*given): name for name, (what, *given) in questions.items()}
        ended, late = ray.wait(list(asked), num_returns=len(asked), timeout=seconds) if asked else ([], [])
        for reference in late:
            self.lost[asked[reference]] = f"did not answer within {seconds:.0f} s"
        answers = {}
        for reference in ended:
            try:
                answers[asked[reference]] = ray.get(reference)
            except ray.exceptions.RayError as error:
                self.lost[asked[reference]] = reason(error)
        return answers

    def dismiss(self) -> None:
        """End the actors, whatever they do."""
        import ray

        for actor in self.actors.values():
            ray.kill(actor)


def node_names(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each node's address, with the beginning of its id where several have one address."""
    addresses = [str(node["NodeManagerAddress"]) for node in nodes]
    return [
        address if addresses.count(address) == 1 else f"{address} ({node['NodeID'][:6]})"
        for address, node in zip(addresses, nodes, strict=True)
    ]


def reason(error: BaseException) -> str:
    """The last line of what Ray says, which names what happened on the node."""
    return str(error).strip().splitlines()[-1].strip()


@contextmanager
def on_cluster(workspace: Path, directory: Path) -> Iterator[RayNodes]:
    """Examiners on all nodes, gone at the end."""
    nodes = RayNodes(workspace, directory)
    try:
        yield nodes
    finally:
        nodes.dismiss()


def offset(ask: Callable[[], float], tries: int) -> tuple[float, float]:
    """How far a clock is from this machine's, in seconds, and how uncertain that is: of so many tries, the quickest."""
    best = (0.0, float("inf"))
    for _ in range(tries):
        before = time.time()
        told = ask()
        after = time.time()
        if (after - before) / 2 < best[1]:
            best = (told - (before + after) / 2, (after - before) / 2)
    return best
