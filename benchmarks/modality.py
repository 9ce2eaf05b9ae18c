"""Part "modality": a training step of the modality-expert model beside transformers' BEiT encoder, and what measuring Grams costs.

Each pass is timed in a process of its own (`modality_alone.py`); processes take turns, so that a busy moment meets all alike.
"""

import subprocess
from statistics import median
from typing import Any

from benchmarks.contest import REPOSITORY, environment, last_json, python

CONTESTS: dict[str, tuple[str, ...]] = {"step": ("ours", "beit"), "gram": ("0", "1", "2")}
"""What is measured, and who takes turns in it; see `modality_alone.py`."""

SHAPES = ("tiny", "base")
MOST_REPETITIONS = 3
"""A base-size pass takes ten seconds on one thread; more turns than these tell nothing new."""


def measure_modality(repetitions: int) -> dict[str, Any]:
    """contest -> shape -> contender -> seconds of one pass: median, least, most."""
    return {
        what: {shape: contest(what, contenders, shape, min(repetitions, MOST_REPETITIONS)) for shape in SHAPES}
        for what, contenders in CONTESTS.items()
    }


def contest(what: str, contenders: tuple[str, ...], shape: str, repetitions: int) -> dict[str, dict[str, float]]:
    """All contenders in turn, each time beginning with another one."""
    found: dict[str, list[float]] = {who: [] for who in contenders}
    for repetition in range(repetitions):
        first = repetition % len(contenders)
        for who in (*contenders[first:], *contenders[:first]):
            found[who].append(seconds_of(what, who, shape))
    return {who: {"median": median(times), "least": min(times), "most": max(times)} for who, times in found.items()}


def seconds_of(what: str, who: str, shape: str) -> float:
    """One process; RuntimeError, with what it said, if it fails."""
    command = python("-m", "benchmarks.modality_alone", what, who, shape)
    more = environment({"OMP_NUM_THREADS": "1"})
    told = subprocess.run(command, env=more, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if told.returncode:
        raise RuntimeError(f"{what} {who} {shape} failed:\n{told.stderr[-3000:]}")
    return float(last_json(told.stdout)["seconds"])


def modality_table(data: dict[str, Any]) -> list[str]:
    """Steps with their ratio, and rates of measuring as shares of the forward pass's own."""
    lines = ["| training step | this model, s | BEiT of `transformers`, s | time, ours : theirs |", "|---|---:|---:|---:|"]
    for shape, found in data["step"].items():
        ratio = found["ours"]["median"] / found["beit"]["median"]
        lines.append(f"| {shape} | {span(found['ours'])} | {span(found['beit'])} | **{ratio:.2f}×** |")
    lines += ["", "| Grams | forward alone, s | every token, s | rate | every second token, s | rate |", "|---|---:|---:|---:|---:|---:|"]
    for shape, found in data["gram"].items():
        alone = found["0"]["median"]
        cells = " | ".join(f"{span(found[every])} | **{alone / found[every]['median']:.2f}×**" for every in ("1", "2"))
        lines.append(f"| {shape} | {span(found['0'])} | {cells} |")
    return lines


def span(found: dict[str, float]) -> str:
    """Median, least and most."""
    return f"{found['median']:.2f} ({found['least']:.2f}–{found['most']:.2f})"
