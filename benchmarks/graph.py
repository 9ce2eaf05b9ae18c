"""Part "graph": a whole experiment on Ray beside the same steps in one plain process, what Ray's parts cost, and how steps add up.

Contenders are whole processes that take turns, each in a directory of its own that is empty when it starts. All end with the same weights,
which is held here: else they would not have done the same.
"""

import json
import shutil
import subprocess
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contest import REPOSITORY, environment, last_json, python
from benchmarks.graph_alone import CPUS
from foundation.files import file_sha256

EXPERIMENT = REPOSITORY / "experiments" / "digits_wise_ft.yaml"
FINAL = Path("runs/digits_wise_ft/checkpoints/wise_ft_after_next")
LENGTHS = (2, 8, 32, 128)
CONTENDERS = ("plain", "1", str(CPUS))
WORDS = {
    "plain": "the libraries alone, one step after another, one process",
    "1": "`run`, one worker slot (`--cpus 1`)",
    str(CPUS): f"`run`, {CPUS} (`--cpus {CPUS}`)",
}


def measure_graph(directory: Path, repetitions: int) -> dict[str, Any]:
    """Seconds of each contender's runs; seconds of Ray's parts; steps and seconds by length of the chain."""
    home = directory / "graph"
    runs: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    stages: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    digests = set()
    for repetition in range(repetitions):
        first = repetition % len(CONTENDERS)
        for name in (*CONTENDERS[first:], *CONTENDERS[:first]):
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
            seconds, staged, digest = timed(name, home)
            runs[name].append(seconds)
            stages[name].append(staged)
            digests.add(digest)
    if len(digests) != 1:
        raise RuntimeError(f"the contenders ended with {len(digests)} different models; they did not do the same work")
    found: dict[str, Any] = {"runs": runs, "stages": stages}
    for part, lengths in (("costs", ()), ("growth", LENGTHS)):
        shutil.rmtree(home, ignore_errors=True)
        found[part] = last_json(told("-m", "benchmarks.graph_alone", part, home, *map(str, lengths)))
    shutil.rmtree(home, ignore_errors=True)
    return found


def timed(name: str, home: Path) -> tuple[float, float, str]:
    """(seconds of the whole process, seconds from the base's end to the last step's, SHA-256 of the final weights) of one contender."""
    began = time.perf_counter()
    if name == "plain":
        said = last_json(told("-m", "benchmarks.graph_alone", "plain", EXPERIMENT, home))
        return time.perf_counter() - began, float(said["stages"]), str(said["digest"])
    alone = ["merge.actors=0"] if name == "1" else []
    told("-m", "pipeline", "run", EXPERIMENT, f"workspace={home}", *alone, "--cpus", name)
    seconds = time.perf_counter() - began
    records = [json.loads(path.read_text()) for path in (home / "store").glob("*/record.json")]
    based = max(record["finished"] for record in records if record["kind"] == "pretrain")
    staged = max(record["finished"] for record in records) - based
    return seconds, staged, file_sha256((home / FINAL).resolve() / "model.safetensors")


def told(*arguments: str | Path) -> str:
    """What a command says; RuntimeError, with its last words, if it fails."""
    ended = subprocess.run(python(*arguments), env=environment({}), cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))} failed:\n{ended.stdout[-1000:]}{ended.stderr[-3000:]}")
    return ended.stdout


def graph_table(data: dict[str, Any]) -> list[str]:
    """Whole runs and their ratios, Ray's parts, and seconds per step by length."""
    runs = {name: median(found) for name, found in data["runs"].items()}
    lines = ["| the quick start's experiment, 22 steps | whole, s | : plain | its stages, s | : plain |", "|---|---:|---:|---:|---:|"]
    staged = {name: median(found) for name, found in data["stages"].items()}
    for name, words in WORDS.items():
        found = data["runs"][name]
        whole = f"{runs[name]:.0f} ({min(found):.0f}–{max(found):.0f}) | **{runs[name] / runs['plain']:.2f}×**"
        lines.append(f"| {words} | {whole} | {staged[name]:.0f} | **{staged[name] / staged['plain']:.2f}×** |")
    lines += ["", "| what Ray takes | s |", "|---|---:|"]
    lines += [f"| {words} | {seconds:.2f} |" for words, seconds in data["costs"].items()]
    lines += [
        "",
        "| stages of nothing | steps | planned, ms/step | run, ms/step | found stored, ms/step |",
        "|---:|---:|---:|---:|---:|",
    ]
    for stages, found in data["growth"].items():
        each = [f"{1000 * found[what] / found['steps']:.1f}" for what in ("plan", "run", "again")]
        lines.append(f"| {stages} | {found['steps']:.0f} | {' | '.join(each)} |")
    return lines
