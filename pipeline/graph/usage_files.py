"""The files that tell what a step took of its machine (`usage.py` writes them), and what they come to in its record.

Every process that works for a step has a file of its own, because two machines cannot append to one:

    store/finetune-5f0c…/usage.jsonl            the process that performs the step, with the node it is on
                         usage-worker_0.jsonl   a worker that trains
                         usage-actor_1.jsonl    an actor of a merge or an evaluation

One JSON line per look: `{"time": …, "process": "0a1b2c3d", "values": {"system/cpu_percent": 12.5, …}, "so_far": {"cpu_seconds": …}}`. They
belong to no digest.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "usage.jsonl"
STEP = "step"
"""The role of the process that performs the step."""


@dataclass(frozen=True)
class Look:
    """One line of a usage file. `number` counts the lines of its file: the same look has the same number whenever it is read."""

    role: str
    number: int
    time: float
    process: str
    values: dict[str, float]
    so_far: dict[str, float]


def usage_file(directory: Path, role: str = STEP) -> Path:
    """Where the looks at a process of a step lie."""
    return directory / (FILE if role == STEP else f"usage-{role}.jsonl")


def read_usage(directory: Path) -> Iterator[Look]:
    """All looks at a step's processes, file by file; a line that was cut off by a crash, or tells a failure, is left out."""
    for path in sorted(directory.glob("usage*.jsonl")):
        role = STEP if path.name == FILE else path.stem.removeprefix("usage-")
        for number, line in enumerate(path.read_text(errors="replace").splitlines()):
            try:
                told = json.loads(line)
                look = Look(role, number, float(told["time"]), str(told["process"]), _numbers(told["values"]), _numbers(told["so_far"]))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
            yield look


def _numbers(told: Mapping[str, Any]) -> dict[str, float]:
    """Names and numbers; TypeError for anything else."""
    if not all(type(value) in (int, float) for value in told.values()):
        raise TypeError("a look tells numbers")
    return dict(told)


def totals(directory: Path, since: float) -> dict[str, float]:
    """CPU seconds, most memory and most GPU memory (bytes) of a step's processes from the time `since` on.

    Memory is the sum over the step's process, its workers and actors of what each (with its children) held at most, mapped files included.
    Empty where nothing was looked at.
    """
    last: dict[tuple[str, str], Look] = {}
    for look in read_usage(directory):
        if look.time >= since - 0.001:  # as exact as it is written
            last[look.role, look.process] = look
    roles: dict[str, dict[str, float]] = {}
    for (role, _), look in last.items():
        found = roles.setdefault(role, {})
        found["cpu_seconds"] = found.get("cpu_seconds", 0) + look.so_far.get("cpu_seconds", 0)
        for name in look.so_far.keys() - {"cpu_seconds"}:  # a worker that was started again did not hold its memory twice
            found[name] = max(found.get(name, 0), look.so_far[name])
    summed: dict[str, float] = {}
    for found in roles.values():
        for name, value in found.items():
            summed[name] = round(summed.get(name, 0) + value, 3)
    return summed


def throughput(metrics: Mapping[str, Any], seconds: float, asked: tuple[str, ...] = ()) -> dict[str, float]:
    """What a step did per second, from what it measured: samples and steps of a training, bytes of a merge, samples of an evaluation.

    `asked` are the tasks that an evaluation asked. `seconds` are the whole step's; training and merging tell their own.
    """
    found: dict[str, float] = {}
    speed, own = metrics.get("samples_per_second"), metrics.get("seconds")
    if isinstance(speed, int | float) and speed > 0:
        found["samples_per_second"] = speed
        if metrics.get("steps") and metrics.get("samples"):
            found["steps_per_second"] = speed * metrics["steps"] / metrics["samples"]
    if own and "bytes_read" in metrics:
        found["bytes_per_second"] = (metrics["bytes_read"] + metrics["bytes_written"]) / own
    samples = sum(metrics[name]["samples"] for name in asked if isinstance(metrics.get(name), Mapping) and "samples" in metrics[name])
    if samples and seconds > 0:
        found["samples_per_second"] = samples / seconds
    return {name: round(value, 6) for name, value in found.items()}
