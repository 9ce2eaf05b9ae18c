"""Part "training": samples per second of a stage beside a plain script, with one and two workers, and what a stage on Ray costs beside it.

Speeds are of processes that take turns; times on Ray are of stages run one after another on one Ray, as an experiment runs them.

    python -m benchmarks.training BASE DIRECTORY REPETITIONS

runs the stages on Ray, in a process of its own, and prints the seconds as JSON in its last line.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contest import REPOSITORY, environment, last_json, python
from pipeline.graph.history import HistoryLog

CONTENDERS = (("plain", 1), ("stage", 1), ("plain", 2), ("stage", 2))
PHASES = ("fit() to the first step", "the steps", "the last step to the checkpoint on disk", "that to the end of fit()")


def measure_training(directory: Path, repetitions: int) -> dict[str, Any]:
    """Speeds by contender, and seconds by phase: `first` on a new Ray, `later` the medians of the stages after it."""
    home = directory / "training"
    base = make_base(home)
    speeds: dict[str, list[float]] = {f"{kind}, {workers}": [] for kind, workers in CONTENDERS}
    for repetition in range(repetitions):
        first = repetition % len(CONTENDERS)
        for kind, workers in (*CONTENDERS[first:], *CONTENDERS[:first]):
            speeds[f"{kind}, {workers}"].append(speed_of(kind, workers, base, home / "out"))
    command = python("-m", "benchmarks.training", base, home, str(repetitions))
    told = subprocess.run(command, env=environment({}), cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if told.returncode:
        raise RuntimeError(f"stages on Ray failed:\n{told.stderr[-3000:]}")
    phases = last_json(told.stdout)
    return {
        "speeds": {name: {"median": median(found), "least": min(found), "most": max(found)} for name, found in speeds.items()},
        "first": phases[0],
        "later": [median(run[place] for run in phases[1:]) for place in range(len(PHASES))],
    }


def make_base(home: Path) -> Path:
    """The digits model, untrained, twice as wide and a layer deeper: 3.2 M weights. Speeds do not depend on what it can do.

    As small as the quick start's (0.8 M), half of a step is Python, which two workers do twice rather than share: a plain script and a
    stage alike then gain 1.4 times, not 1.8.
    """
    import torch
    from transformers import LlavaForConditionalGeneration

    from models.digits_llava import digits_llava, digits_processor
    from models.load import save_checkpoint
    from tasks.digits import all_texts

    home.mkdir(parents=True, exist_ok=True)
    if not (home / "base").exists():
        config = digits_llava(seed=0).config
        text = config.text_config
        text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.layer_types = 256, 640, 4, ["full_attention"] * 4
        torch.manual_seed(0)
        save_checkpoint(LlavaForConditionalGeneration(config).eval(), digits_processor(all_texts()), home / "base")
    return home / "base"


def speed_of(kind: str, workers: int, base: Path, output: Path) -> float:
    """Samples per second of one run by one or several processes; RuntimeError, with what they said, if one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(workers), "LOCAL_WORLD_SIZE": str(workers)}
    command = python("-m", "benchmarks.training_alone", kind, base, output)
    processes = []
    for rank in range(workers):
        place = {**together, "RANK": str(rank), "LOCAL_RANK": str(rank)} if workers > 1 else {}
        more = environment({**place, "OMP_NUM_THREADS": "1"})
        processes.append(subprocess.Popen(command, env=more, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    said = [process.communicate(timeout=600)[0] for process in processes]
    shutil.rmtree(output, ignore_errors=True)
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{kind} with {workers} workers failed:\n{said[0][-3000:]}")
    return float(last_json(said[0])["speed"])


@dataclass
class Place:
    """Where a stage works, without a store around it. Workers import `progress`, so it is a function that they have."""

    directory: Path
    progress: Any = print

    def __post_init__(self) -> None:
        self.scratch = self.directory / "work"
        self.directory.mkdir(parents=True)

    def log_function(self) -> HistoryLog:
        """Time stamps of every step."""
        return HistoryLog(self.directory / "history.jsonl", "stage")


def stages_on_ray(base: Path, home: Path, count: int) -> list[list[float]]:
    """The seconds of each phase of `count` + 1 stages on one Ray; the first also starts its first processes."""
    from benchmarks.training_alone import SPEC, TASK
    from pipeline.graph.cluster import connected
    from pipeline.graph.training import fit
    from pipeline.step import Resources
    from tasks.registry import get_task
    from trainers.strategies.fine_tuning import FineTuning
    from trainers.strategy import Learning

    learning = Learning(get_task(TASK), replace(SPEC, max_steps=8, samples=64, log_steps=1), FineTuning())
    found = []
    with connected():
        for _ in range(count + 1):
            shutil.rmtree(home / "stage", ignore_errors=True)
            place = Place(home / "stage")
            began = time.time()
            fit(place, base, learning, Resources())  # type: ignore[arg-type]
            ended = time.time()
            steps = [json.loads(line)["time"] for line in (place.directory / "history.jsonl").read_text().splitlines()][
                : learning.spec.max_steps
            ]
            written = os.stat(place.directory / "checkpoint").st_ctime  # renamed into place
            found.append([steps[0] - began, steps[-1] - steps[0], written - steps[-1], ended - written])
    shutil.rmtree(home / "stage")
    return found


def training_table(data: dict[str, Any]) -> list[str]:
    """Speeds with the ratios that matter, and the phases of a stage on Ray."""
    speeds = {name: found["median"] for name, found in data["speeds"].items()}
    lines = ["| | 1 worker, samples/s | 2 workers | 2 : 1 |", "|---|---:|---:|---:|"]
    for kind, words in (("plain", "plain `transformers.Trainer` script"), ("stage", "this project's stage")):
        spans = [span(data["speeds"][f"{kind}, {workers}"]) for workers in (1, 2)]
        lines.append(f"| {words} | {spans[0]} | {spans[1]} | {speeds[f'{kind}, 2'] / speeds[f'{kind}, 1']:.2f}× |")
    ratios = [speeds[f"stage, {workers}"] / speeds[f"plain, {workers}"] for workers in (1, 2)]
    lines += [f"| **stage : script** | **{ratios[0]:.2f}×** | **{ratios[1]:.2f}×** | |", ""]
    lines += ["| a stage of 8 steps on Ray Train | first on a new Ray, s | later, s |", "|---|---:|---:|"]
    lines += [f"| {phase} | {first:.2f} | {later:.2f} |" for phase, first, later in zip(PHASES, data["first"], data["later"], strict=True)]
    return lines


def span(found: dict[str, float]) -> str:
    """Median, least and most."""
    return f"{found['median']:.0f} ({found['least']:.0f}–{found['most']:.0f})"


def main(arguments: Sequence[str]) -> None:
    """Print what the stages on Ray took."""
    print(json.dumps(stages_on_ray(Path(arguments[0]), Path(arguments[1]), int(arguments[2]))))


if __name__ == "__main__":
    main(sys.argv[1:])
