"""Part "search": what an alpha search costs beside its evaluations alone, and beside merging to disk, loading and asking each time.

Every contender is a process of its own, timed whole and without what it takes to import and prepare; they take turns. The models are the
quick start's, untrained: time does not depend on what they answer, but for answers that end early.

    python -m benchmarks.search KIND POINTS DIRECTORY

is one contender; it prints its seconds as JSON in the last line.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contest import REPOSITORY, environment, last_json, python

POINTS = 11
MANY = 101
SAMPLES = 200
CONTENDERS = (
    ("evaluate", POINTS),
    ("disk", POINTS),
    ("commands", POINTS),
    ("search 0", POINTS),
    ("search 1", POINTS),
    ("search 4", POINTS),
    ("search 4", MANY),
)
WORDS = {
    "evaluate": "the evaluations alone, one model in one process",
    "disk": "merged to disk, loaded, evaluated, in one process",
    "commands": "the same as a script would, a `merge` and an `evaluate` command for each alpha",
    "search 0": "search in this process",
    "search 1": "search on Ray Tune, 1 worker",
    "search 4": "search on Ray Tune, 4 workers",
}


def measure_search(directory: Path, repetitions: int) -> dict[str, Any]:
    """Contender -> seconds, and seconds from the command to the end: medians."""
    home = directory / "search"
    make_sources(home)
    found: dict[str, list[tuple[float, float]]] = {name_of(*each): [] for each in CONTENDERS}
    for repetition in range(repetitions):
        first = repetition % len(CONTENDERS)
        for kind, points in (*CONTENDERS[first:], *CONTENDERS[:first]):
            found[name_of(kind, points)].append(timed(kind, points, home))
    return {name: {"work": median(each[0] for each in times), "whole": median(each[1] for each in times)} for name, times in found.items()}


def name_of(kind: str, points: int) -> str:
    """A contender and how many points it tries."""
    return f"{kind}, {points}"


def make_sources(home: Path) -> None:
    """Two untrained models of the quick start's shape."""
    from models.digits_llava import digits_llava, digits_processor
    from models.load import save_checkpoint
    from tasks.digits import all_texts

    home.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(("previous", "tuned")):
        if not (home / name).exists():
            save_checkpoint(digits_llava(seed), digits_processor(all_texts()), home / name)


def timed(kind: str, points: int, home: Path) -> tuple[float, float]:
    """(seconds of the work, seconds of the whole process); RuntimeError with what it said if it fails."""
    command = python("-m", "benchmarks.search", kind, str(points), home)
    began = time.perf_counter()
    told = subprocess.run(command, env=environment({"OMP_NUM_THREADS": "1"}), cwd=REPOSITORY, capture_output=True, text=True, check=False)
    whole = time.perf_counter() - began
    if told.returncode:
        raise RuntimeError(f"{kind} failed:\n{told.stderr[-3000:]}")
    return float(last_json(told.stdout)["seconds"]), whole


def suite() -> Any:
    """The quick start's ten tasks, on validation."""
    from evaluators.suite import Suite
    from tasks.registry import DIGITS_BASE, DIGITS_STREAM, get_task
    from tasks.task import Split

    stream, held_out = (tuple(map(get_task, names)) for names in (DIGITS_STREAM, DIGITS_BASE))
    return Suite(stream, held_out, Split.VALIDATION, SAMPLES)


def evaluations(points: int, home: Path) -> None:
    """As many evaluations as there are points, of models that are there."""
    from evaluators.evaluate import evaluate

    for _ in range(points):
        evaluate(home / "tuned", suite(), home / "asked")


def by_disk(points: int, home: Path) -> None:
    """Every merge written, loaded and asked."""
    from evaluators.evaluate import evaluate
    from mergers import Source, WiseFT, execute, plan_merge, read_checkpoint

    sources = [Source(name, read_checkpoint(home / name)) for name in ("previous", "tuned")]
    for number in range(points):
        execute(plan_merge(WiseFT(number / (points - 1)), sources, home / "merged", replace=True))
        evaluate(home / "merged", suite(), home / "asked")


def by_commands(points: int, home: Path) -> None:
    """A merge command and an evaluate command for each alpha."""
    for number in range(points):
        alpha = number / (points - 1)
        shutil.rmtree(home / "merged", ignore_errors=True)
        shutil.rmtree(home / "asked", ignore_errors=True)
        merge = ("merge", "--checkpoints", home / "previous", home / "tuned", "--alphas", f"{alpha}", f"{1 - alpha}")
        ask = ("evaluate", home / "merged", "--samples", str(SAMPLES), "--split", "validation", "--output", home / "asked")
        for arguments in ((*merge, "--output", home / "merged"), ask):
            subprocess.run(python("-m", "pipeline", *arguments), cwd=REPOSITORY, check=True, capture_output=True)


def by_search(workers: int) -> Callable[[int, Path], None]:
    """The search, with so many workers."""

    def run(points: int, home: Path) -> None:
        from pipeline.graph.cluster import connected
        from pipeline.search.run import search
        from pipeline.search.spec import Axis, SearchSpec

        spec = SearchSpec("wise_ft", (Axis("alpha", 0.0, 1.0),), points=points, samples=SAMPLES)
        shutil.rmtree(home / "trials", ignore_errors=True)
        sources = {name: home / name for name in ("previous", "tuned")}
        if not workers:
            search(spec, sources, None, suite(), "next", home / "trials", workers=0)
            return
        with connected():  # already up: what a search costs within a pipeline
            search(spec, sources, None, suite(), "next", home / "trials", workers=workers)

    return run


def main(arguments: Sequence[str]) -> None:
    """One contender: warm what all of them need, then the seconds of its work."""
    from evaluators.evaluate import evaluate
    from evaluators.suite import Suite
    from pipeline.graph.cluster import connected

    kind, points, home = arguments[0], int(arguments[1]), Path(arguments[2])
    work = {"evaluate": evaluations, "disk": by_disk, "commands": by_commands}.get(kind) or by_search(int(kind.split()[-1]))
    asked = suite()
    evaluate(home / "tuned", Suite(asked.stream[:1], split=asked.split, samples=8), home / "asked")  # what is imported once
    if not kind.startswith("search") or kind == "search 0":
        began = time.perf_counter()
        work(points, home)
        print(json.dumps({"seconds": time.perf_counter() - began}))
        return
    with connected(cpus=4):
        began = time.perf_counter()
        work(points, home)
        print(json.dumps({"seconds": time.perf_counter() - began}))


def search_table(data: dict[str, Any]) -> list[str]:
    """Seconds, and each contender's ratio to the evaluations alone and to the way by disk."""
    alone, disk = (data[name_of(kind, POINTS)]["work"] for kind in ("evaluate", "disk"))
    lines = ["| | points | seconds | : evaluations alone | way by disk : this |", "|---|---:|---:|---:|---:|"]
    for kind, points in CONTENDERS:
        seconds, scale = data[name_of(kind, points)]["work"], points / POINTS
        lines.append(f"| {WORDS[kind]} | {points} | {seconds:.1f} | {seconds / alone / scale:.2f}× | {disk * scale / seconds:.2f}× |")
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
