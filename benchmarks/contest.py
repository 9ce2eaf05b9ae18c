"""Contenders run in turn, several times over, each time from the same state: sources in the page cache, nothing to flush, no output."""

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Measurement, measure

REPOSITORY = Path(__file__).parents[1]
NOT_INHERITED = ("OMP_", "MKL_", "OPENBLAS_", "MERGELINE_", "RAY_", "PYTHONHASHSEED", "PYTHONPATH", "TORCH_", "THP_")
"""Beginnings of environment variables that would favour or hinder one side."""


@dataclass(frozen=True)
class Contender:
    """A command, and the directory or file it writes (removed before and after every run)."""

    name: str
    command: tuple[str, ...]
    output: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """Several runs of one command: medians, the spread of the wall seconds, and the most memory (bytes) that any run held."""

    wall: float
    wall_least: float
    wall_most: float
    cpu: float
    anonymous: int
    file: int
    shared: int
    runs: int


def contest(contenders: Sequence[Contender], sources: Sequence[Path], repetitions: int) -> dict[str, Summary]:
    """Run every contender once, then all again, `repetitions` times, each time beginning with another one; the summary of each."""
    runs: dict[str, list[Measurement]] = {contender.name: [] for contender in contenders}
    for repetition in range(repetitions):
        first = repetition % len(contenders)
        for contender in [*contenders[first:], *contenders[:first]]:
            runs[contender.name].append(run(contender, sources))
            remove(contender.output)
    return {name: summarize(found) for name, found in runs.items()}


def run(contender: Contender, sources: Sequence[Path], data_limit: int | None = None) -> Measurement:
    """One run, its output left lying; RuntimeError, with what the command said, if it fails."""
    result = attempt(contender, sources, data_limit)
    if result.code != 0:
        raise RuntimeError(f"{contender.name} ended with code {result.code}: {' '.join(contender.command)}\n{result.output[-3000:]}")
    if contender.output is not None and not contender.output.exists():
        raise RuntimeError(f"{contender.name} wrote no {contender.output}: {' '.join(contender.command)}\n{result.output[-3000:]}")
    return result


def attempt(contender: Contender, sources: Sequence[Path], data_limit: int | None = None) -> Measurement:
    """One run, whether it succeeds or not."""
    remove(contender.output)
    warm(sources)
    os.sync()
    return measure(contender.command, environment=environment(contender.environment), directory=REPOSITORY, data_limit=data_limit)


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what sets thread counts and the like; no network for either side."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    return kept | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)} | dict(more)


def remove(output: Path | None) -> None:
    """Remove an output, if it is there."""
    if output is not None and output.is_dir():
        shutil.rmtree(output)
    elif output is not None:
        output.unlink(missing_ok=True)


def warm(sources: Sequence[Path]) -> None:
    """Read the files once, so that they lie in the page cache (where memory suffices)."""
    for source in sources:
        for path in sorted(source.glob("*.safetensors")):
            with open(path, "rb", buffering=0) as file:
                block = bytearray(1 << 20)
                while file.readinto(block):
                    pass


def summarize(runs: Sequence[Measurement]) -> Summary:
    """Medians and extremes."""
    walls = [run.wall for run in runs]
    return Summary(
        wall=median(walls),
        wall_least=min(walls),
        wall_most=max(walls),
        cpu=median(run.cpu for run in runs),
        anonymous=max(run.anonymous for run in runs),
        file=max(run.file for run in runs),
        shared=max(run.shared for run in runs),
        runs=len(runs),
    )


def python(*arguments: str | Path) -> tuple[str, ...]:
    """A command for this Python."""
    return (sys.executable, *map(str, arguments))


def last_json(text: str) -> Any:
    """What a child of the benchmark reports: the JSON in its last line."""
    return json.loads(text.strip().splitlines()[-1])
