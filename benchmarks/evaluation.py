"""Part "evaluation": samples per second of `evaluate` beside a loop around `model.generate`, of two workers beside one, and of scoring.

Every contender is a process of its own (`evaluation_alone.py`), timed without imports; they take turns. The models are untrained: how long
an answer is does not depend on what they have learned, for they seldom end one early.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contest import REPOSITORY, environment, last_json, python
from benchmarks.training import make_base, span

SAMPLES = 300
MANY = 600
"""Samples of each task for workers on Ray: what the driver does alone, planning, is a smaller part of it, as it is of larger models."""
FEW = 40
"""Samples of each task for a loop that asks one at a time: it takes long, and all are alike."""
SIZES = (16, 50, 100, 300)
"""Batch sizes that the plain loop is given; the best counts."""
WORKERS = (1, 2)
SHARED = "50"
"""The batch size of workers on Ray: one task's samples in one batch would be one worker's alone."""
ANSWERS = 100_000
TASKS = 3


def measure_evaluation(directory: Path, repetitions: int) -> dict[str, Any]:
    """model -> contender -> samples per second: median, least, most; and answers per second of scoring."""
    home = directory / "evaluation"
    found: dict[str, Any] = {"models": {name: measure_model(place, repetitions) for name, place in make_checkpoints(home).items()}}
    scored = [ANSWERS / timed("score", str(ANSWERS)) for _ in range(repetitions)]
    return found | {"score": summary(scored)}


def make_checkpoints(home: Path) -> dict[str, Path]:
    """The quick start's model and one four times its size."""
    from models.digits_llava import digits_llava, digits_processor
    from models.load import save_checkpoint
    from tasks.digits import all_texts

    home.mkdir(parents=True, exist_ok=True)
    if not (home / "small").exists():
        save_checkpoint(digits_llava(0), digits_processor(all_texts()), home / "small")
    return {"0.8 M weights": home / "small", "3.2 M weights": make_base(home)}


def measure_model(place: Path, repetitions: int) -> dict[str, dict[str, float]]:
    """Contender -> samples per second. The best batch size of the loop is found first, then all take turns."""
    tried = {size: timed("plain", place, str(size), str(SAMPLES)) for size in SIZES}
    best = str(min(tried, key=lambda size: tried[size]))
    contenders: dict[str, tuple[int, tuple[str | Path, ...]]] = {
        "one at a time": (FEW, ("plain", place, "1", str(FEW))),
        "best batch": (SAMPLES, ("plain", place, best, str(SAMPLES))),
        "ours": (SAMPLES, ("ours", place, best, str(SAMPLES), "0")),
    } | {f"{count} on Ray": (MANY, ("ours", place, SHARED, str(MANY), str(count))) for count in WORKERS}
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for repetition in range(repetitions):
        first = repetition % len(names)
        for name in (*names[first:], *names[:first]):
            samples, arguments = contenders[name]
            speeds[name].append(TASKS * samples / timed(*arguments))
    return {name: summary(found) for name, found in speeds.items()} | {"batch": {"size": float(best)}}


def summary(found: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": median(found), "least": min(found), "most": max(found)}


def timed(*arguments: str | Path) -> float:
    """The seconds that a contender tells; RuntimeError with what it said if it fails."""
    command = python("-m", "benchmarks.evaluation_alone", *arguments)
    told = subprocess.run(command, env=environment({"OMP_NUM_THREADS": "1"}), cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if told.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))} failed:\n{told.stderr[-3000:]}")
    return float(last_json(told.stdout)["seconds"])


WORDS = {
    "one at a time": "a loop around `model.generate`, one at a time",
    "best batch": "the same loop, at its best batch size",
    "ours": "`evaluate` in one process, the same batch size",
    "1 on Ray": "`evaluate`, 1 worker on Ray",
    "2 on Ray": "`evaluate`, 2 workers on Ray",
}


RATIOS = (
    ("`evaluate` : one at a time", "ours", "one at a time"),
    ("`evaluate` : best batch size", "ours", "best batch"),
    ("2 workers : 1", "2 on Ray", "1 on Ray"),
)


def evaluation_table(data: dict[str, Any]) -> list[str]:
    """Samples per second, and the ratios that matter."""
    models = data["models"]
    lines = [f"| samples/s | {' | '.join(models)} |", f"|---|{'---:|' * len(models)}"]
    for name, words in WORDS.items():
        lines.append(f"| {words} | {' | '.join(span(found[name]) for found in models.values())} |")
    for words, above, below in RATIOS:
        ratios = [f"**{found[above]['median'] / found[below]['median']:.2f}×**" for found in models.values()]
        lines.append(f"| **{words}** | {' | '.join(ratios)} |")
    sizes = ", ".join(f"{found['batch']['size']:.0f}" for found in models.values())
    seconds = ANSWERS / data["score"]["median"]
    return [
        *lines,
        "",
        f"The loop's best batch sizes: {sizes}. Scoring {ANSWERS:,} answers, with writing and reading them: {seconds:.2f} s.",
    ]
