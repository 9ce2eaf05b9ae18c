"""Part "tracking": what MLflow and looking at the machine add to a stage's wall time, and how fast 10,000 points are brought over.

Stages take turns on one Ray (`tracking_alone.py`): nothing tracked and nothing looked at, an SQLite file, a server on loopback. All do the
same work from the same stored base, and end with the same model, which is held here.
"""

import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contest import REPOSITORY, environment, last_json, python
from benchmarks.tracking_server import tracking_server

KINDS = ("none", "sqlite", "server")
POINTS = 10_000
WORDS = {"none": "nothing tracked, machine not looked at", "sqlite": "an SQLite file", "server": "a server on loopback"}


def measure_tracking(directory: Path, repetitions: int) -> dict[str, Any]:
    """Kind -> seconds of the stage and of the run's end, in the order of the rounds; seconds of `sync` with and without the points."""
    home = directory / "tracking"
    home.mkdir(parents=True, exist_ok=True)
    for left in ("mlflow.db", "server.db"):
        (home / left).unlink(missing_ok=True)
    database = f"sqlite:///{home / 'mlflow.db'}"
    with tracking_server(home / "server", f"sqlite:///{home / 'server.db'}") as server:
        addresses = [f"sqlite={database}", f"server={server}"]
        found: dict[str, Any] = {"stages": last_json(told("stages", home, str(repetitions), *addresses))}
        found["replay"] = {kind: replays(home, kind, address, repetitions) for kind, address in (("sqlite", database), ("server", server))}
    return found | {"points": POINTS}


def replays(home: Path, kind: str, address: str, repetitions: int) -> dict[str, list[float]]:
    """Seconds of whole `sync` processes: of a run with the points, and of the same run without them."""
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for repetition in range(repetitions):
        for name, points in (("with", POINTS), ("without", 0)):
            run = last_json(told("journal", home, str(points), f"replay-{name}-{kind}-{repetition}-{time.time_ns()}"))
            began = time.perf_counter()
            call("-m", "pipeline", "sync", run["name"], "--workspace", run["workspace"], "--tracking", address)
            seconds[name].append(time.perf_counter() - began)
    return seconds


def told(*arguments: str | Path) -> str:
    """What one of the tasks of `tracking_alone.py` prints."""
    return call("-m", "benchmarks.tracking_alone", *arguments)


def call(*arguments: str | Path) -> str:
    """What a process prints; RuntimeError with what it said if it fails."""
    known = environment({"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"})
    ended = subprocess.run(python(*arguments), env=known, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))} failed:\n{ended.stdout[-1000:]}{ended.stderr[-3000:]}")
    return ended.stdout


def ratios(stages: dict[str, list[dict[str, float]]], kind: str) -> list[float]:
    """Of each round, the stage's seconds to those of the one that tracks nothing."""
    return [mine["stage"] / alone["stage"] for mine, alone in zip(stages[kind], stages["none"], strict=True)]


def tracking_table(data: dict[str, Any]) -> list[str]:
    """Stages with their ratios, and what a replay takes."""
    stages = data["stages"]
    lines = ["| tracked in | a stage, s | : nothing tracked, by rounds | waited for MLflow at the run's end, s |", "|---|---:|---:|---:|"]
    for kind in KINDS:
        seconds, ends = ([run[what] for run in stages[kind]] for what in ("stage", "end"))
        each = ratios(stages, kind)
        compared = "" if kind == "none" else f"**{median(each):.3f}×** ({min(each):.3f}–{max(each):.3f})"
        lines.append(f"| {WORDS[kind]} | {span(seconds)} | {compared} | {median(ends):.1f} |")
    lines += ["", f"| `sync`, whole process | {data['points']:,} points more, s | without them, s |", "|---|---:|---:|"]
    for kind, found in data["replay"].items():
        lines.append(f"| to {WORDS[kind]} | {span(found['with'])} | {span(found['without'])} |")
    return lines


def span(seconds: list[float]) -> str:
    """Median, least and most."""
    return f"{median(seconds):.2f} ({min(seconds):.2f}–{max(seconds):.2f})"
