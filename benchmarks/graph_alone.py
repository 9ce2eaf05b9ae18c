"""One way of working an experiment off, or a chain of trivial steps, in a process of its own.

    python -m benchmarks.graph_alone plain FILE DIRECTORY       the experiment's steps one after another, by the libraries alone
    python -m benchmarks.graph_alone growth DIRECTORY STAGE...  chains of so many stages of steps that do nothing, on one Ray
    python -m benchmarks.graph_alone costs DIRECTORY            what Ray takes to start, and its first and later steps and actors

`plain` is what one would write by hand: no store, no records, no Ray, no MLflow; models go from stage to stage as directories. Printed as
JSON in the last line: the final model's digest and the seconds of all that comes after the base; or seconds.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.step import Outcome, Step, Work

CPUS = 4


@dataclass(frozen=True, eq=False, repr=False)
class Trivial(Step):
    """A step that writes one small file."""

    kind: ClassVar[str] = "trivial"
    number: int
    before: tuple[Step, ...] = ()

    def run(self, work: Work) -> Outcome:
        place = work.directory / "checkpoint"
        place.mkdir(exist_ok=True)
        (place / "number.txt").write_text(str(self.number))
        return Outcome(place)


def chain(stages: int, salt: int = 0) -> list[Step]:
    """Per stage what WiSE-FT has: a model learns, is merged with the one before, and both are asked. The last ones of each stage."""
    merged: Step = Trivial(salt)
    ends: list[Step] = [merged]
    for stage in range(stages):
        number = salt + 10 * (stage + 1)
        tuned = Trivial(number, (merged,))
        merged = Trivial(number + 1, (merged, tuned))
        ends += [Trivial(number + 2, (tuned,)), Trivial(number + 3, (merged,))]
    return ends


def plain(file: Path, directory: Path) -> dict[str, Any]:
    """The experiment's steps in their order, in this process; SHA-256 of the last model's weights, and the seconds of all stages."""
    from foundation.files import file_sha256
    from pipeline.config.experiment import build

    os.environ["OMP_NUM_THREADS"] = "1"
    built = build(file, [f"workspace={directory}"])
    places: dict[str, Path] = {}
    staged = 0.0
    for step in built.steps:
        began = time.perf_counter()
        places[step.key] = do(step, places, directory / step.key)
        staged += time.perf_counter() - began if step.kind != "pretrain" else 0.0
    return {"stages": staged, "digest": file_sha256(places[built.milestones[-1].model.key] / "model.safetensors")}


def do(step: Any, places: dict[str, Path], place: Path) -> Path:
    """One step by the library that does it; where its model lies."""
    from evaluators.evaluate import evaluate
    from pipeline.graph.actors import merge_step
    from pipeline.steps import Evaluate, FineTune, Merge, Pretrain
    from trainers.learn import learn
    from trainers.pretraining.digits import pretrain_digits
    from trainers.strategy import Learning

    made = place / "checkpoint"
    if isinstance(step, Pretrain):
        pretrain_digits(step.seed, made, None, step.threads, step.recipe)
    elif isinstance(step, FineTune):
        learn(Learning(step.task, step.train, step.strategy), places[step.start.key], made, place / "work")
    elif isinstance(step, Merge):
        sources = {name: (places[source.key], name) for name, source in step.sources.items()}
        merge_step(step.merger, sources, None, made, 0, lambda done, total: None)
    elif isinstance(step, Evaluate):
        evaluate(places[step.model.key], step.suite, place, step.batch_size, step.threads)
    else:
        raise TypeError(f"{step.key} is none of the steps that are compared here")
    return made


def growth(directory: Path, lengths: Sequence[int]) -> dict[str, dict[str, float]]:
    """Stages -> steps, seconds to plan, to run, and to find that all is stored."""
    from pipeline.graph.cluster import connected
    from pipeline.graph.dag import Watch, run_dag
    from pipeline.plan import needed
    from pipeline.store import Store

    store, found = Store(directory / "store"), {}
    with connected(cpus=CPUS):
        run_dag(needed(chain(CPUS, salt=9_000_000), store), store, Watch())  # its processes are up
        for length in lengths:
            began = time.perf_counter()
            ends = chain(length, salt=100_000 * length)
            steps = needed(ends, store)
            planned = time.perf_counter()
            run_dag(steps, store, Watch())
            ran = time.perf_counter()
            left = needed(chain(length, salt=100_000 * length), store)
            again = time.perf_counter() - ran
            if left:
                raise RuntimeError(f"{len(left)} of {len(steps)} steps did not run")
            found[str(length)] = {"steps": len(steps), "plan": planned - began, "run": ran - planned, "again": again}
    return found


def costs(directory: Path) -> dict[str, float]:
    """Seconds of Ray's start, a first step, a later one, a first actor that has torch loaded, and another beside it."""
    from pipeline.graph.actors import RayActors
    from pipeline.graph.cluster import connected
    from pipeline.graph.dag import Watch, run_dag
    from pipeline.plan import needed
    from pipeline.store import Store

    store, found, began = Store(directory / "store"), {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal began
        found[name] = time.perf_counter() - began
        began = time.perf_counter()

    with connected(cpus=CPUS):
        lap("Ray's start")
        for name, number in (("the first step", 1), ("a later step", 2)):
            run_dag(needed([Trivial(number)], store), store, Watch())
            lap(name)
        for name in ("the first actor and its work", "an actor after that"):
            with RayActors(1) as crew:
                list(crew.map(abs, [-1]))
            lap(name)
    lap("Ray's end")
    return found


def main(kind: str, *arguments: str) -> None:
    """Print what the arguments ask for."""
    if kind == "plain":
        told: Any = plain(Path(arguments[0]), Path(arguments[1]))
    elif kind == "growth":
        told = growth(Path(arguments[0]), [int(each) for each in arguments[1:]])
    else:
        told = costs(Path(arguments[0]))
    print(json.dumps(told))


if __name__ == "__main__":
    from benchmarks.graph_alone import main as entry  # so that workers know the steps by a name that they can import

    entry(*sys.argv[1:])
