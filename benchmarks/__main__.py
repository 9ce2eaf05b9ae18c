"""The benchmark's command line: see the package's own words."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import document
from benchmarks.checkpoints import SHAPES, make_models
from benchmarks.contenders import METHODS
from benchmarks.contest import REPOSITORY
from benchmarks.evaluation import measure_evaluation
from benchmarks.graph import measure_graph
from benchmarks.limits import measure_limits
from benchmarks.methods import measure_method
from benchmarks.modality import measure_modality
from benchmarks.parity import run_parity, table
from benchmarks.planning import measure_planning
from benchmarks.scaling import measure_gate, measure_scaling
from benchmarks.search import measure_search
from benchmarks.start import measure_start
from benchmarks.tracking import measure_tracking
from benchmarks.training import measure_training
from foundation.errors import MergelineError

LARGE = ("70b", "405b")
"""Shapes that are only planned for."""


@dataclass(frozen=True)
class Request:
    """What to measure: `models` is the directory of the checkpoints of that scale, `afresh` tries mergekit's options again."""

    directory: Path
    scale: str
    methods: tuple[str, ...]
    repetitions: int
    afresh: bool

    @property
    def models(self) -> Path:
        """Where the checkpoints lie."""
        return self.directory / self.scale


def measure_methods(request: Request) -> dict[str, Any]:
    """Every method against mergekit, kept one by one: all together take long."""
    known = document.load(request.directory, request.scale).get("methods", {}).get("data", {})
    for name in request.methods:
        # mergekit's options concern reading and writing, which all methods share: tried on the first, taken for the others
        earlier = None if request.afresh else known.get(name) or next(iter(known.values()), None)
        known = known | {name: measure_method(request.models, METHODS[name], request.repetitions, earlier, say)}
        document.keep(request.directory, request.scale, "methods", known)
    return known


PARTS: dict[str, Callable[[Request], dict[str, Any]]] = {
    "start": lambda request: measure_start(request.directory, request.repetitions),
    "methods": measure_methods,
    "scaling": lambda request: measure_scaling(request.models, request.methods, request.repetitions),
    "gate": lambda request: measure_gate(request.models, request.methods, request.repetitions),
    "limits": lambda request: measure_limits(request.models, request.methods),
    "planning": lambda request: measure_planning(request.directory, ("1.1b", *LARGE)),
    "training": lambda request: measure_training(request.directory, request.repetitions),
    "modality": lambda request: measure_modality(request.repetitions),
    "search": lambda request: measure_search(request.directory, min(request.repetitions, 3)),
    "evaluation": lambda request: measure_evaluation(request.directory, request.repetitions),
    "graph": lambda request: measure_graph(request.directory, min(request.repetitions, 3)),
    "tracking": lambda request: measure_tracking(request.directory, request.repetitions),
}


def run(arguments: argparse.Namespace) -> None:
    """Measure the chosen parts, keeping each as soon as it is done."""
    methods = tuple(arguments.methods)
    request = Request(arguments.directory.absolute(), arguments.scale, methods, arguments.repetitions, arguments.afresh)
    request.models.mkdir(parents=True, exist_ok=True)
    make_models(request.models, SHAPES[request.scale])
    for part in arguments.parts:
        say(f"--- {part} ({request.scale})")
        document.keep(request.directory, request.scale, part, PARTS[part](request))
    if arguments.write:
        write(arguments)


def write(arguments: argparse.Namespace) -> None:
    """The results of a scale into the page."""
    results = document.load(arguments.directory.absolute(), arguments.scale)
    if not results:
        raise MergelineError(f"{arguments.directory} has no results at scale {arguments.scale}; measure first: python -m benchmarks run")
    for mark, lines in document.sections(results, arguments.scale).items():
        document.write_section(mark, lines)
    say(f"written: {document.PAGE}")


def check_parity(arguments: argparse.Namespace) -> None:
    """Parity with mergekit, printed; with --write into the page too."""
    with tempfile.TemporaryDirectory() as directory:
        lines = table(run_parity(Path(directory)))
    say("\n".join(lines))
    if arguments.write:
        document.write_section("parity", document.parity_section(lines))
        say(f"written: {document.PAGE}")


def say(text: str) -> None:
    """Progress, at once."""
    print(text, flush=True)


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = top.add_subparsers(required=True)
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--directory", type=Path, default=REPOSITORY / ".bench", help="checkpoints and results (11 GB for 1.1b)")
    place.add_argument("--scale", choices=[name for name in SHAPES if name not in LARGE], default="50m")
    measuring = commands.add_parser("run", parents=[place], help="measure")
    measuring.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    measuring.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    measuring.add_argument("--repetitions", type=int, default=5)
    measuring.add_argument("--afresh", action="store_true", help="try again which options of mergekit are fastest")
    measuring.add_argument("--write", action="store_true", help="the results into docs/benchmarks.md, too")
    measuring.set_defaults(act=run)
    commands.add_parser("write", parents=[place], help="results into docs/benchmarks.md").set_defaults(act=write)
    comparing = commands.add_parser("parity", help="compare the numbers with mergekit's")
    comparing.add_argument("--write", action="store_true", help="the table into docs/benchmarks.md, too")
    comparing.set_defaults(act=check_parity)
    return top


def main() -> None:
    """Do what the arguments say."""
    arguments = parser().parse_args()
    try:
        arguments.act(arguments)
    except MergelineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
