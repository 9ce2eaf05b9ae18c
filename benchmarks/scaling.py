"""Parts "scaling" and "gate": one merge on 1, 2 and 4 processes and Ray actors, alone and as whole processes; what the NaN gate costs."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.alone import COUNTS
from benchmarks.contenders import METHODS, ours, plain_copy, sources_of, write_config
from benchmarks.contest import Contender, contest, last_json, python, run

SCALED = ("linear", "ties")
"""A method that mostly reads and writes, and one that mostly computes."""


def measure_scaling(directory: Path, methods: Sequence[str], repetitions: int) -> dict[str, Any]:
    """Processes and warm actors, merge alone; whole processes with `--actors`; plain copies with as many threads."""
    sources = sources_of(METHODS["linear"], directory)
    config = write_config(METHODS["linear"], directory)
    whole = [ours(config, directory / f"out-{count}", "--actors", str(count), name=f"{count} actors") for count in (0, *COUNTS)]
    copies = [plain_copy(sources, directory / f"out-copy-{count}", count) for count in COUNTS]
    return {
        "alone": {method: in_child("workers", directory, method, repetitions) for method in SCALED if method in methods},
        "whole": {name: asdict(summary) for name, summary in contest(whole, sources, repetitions).items()},
        "copies": {name: asdict(summary) for name, summary in contest(copies, sources, repetitions).items()},
    }


def measure_gate(directory: Path, methods: Sequence[str], repetitions: int) -> dict[str, Any]:
    """Method -> seconds with and without the NaN gate."""
    return {method: in_child("gate", directory, method, repetitions) for method in methods}


def in_child(what: str, directory: Path, method: str, repetitions: int) -> Any:
    """What `benchmarks.alone` finds, in a process of its own."""
    command = python("-m", "benchmarks.alone", what, directory, method, str(repetitions))
    return last_json(run(Contender(f"{what} of {method}", command), []).output)
