"""Results kept as JSON, and written into docs/benchmarks.md, each part between marks of its own; all else on that page stays as it is."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.contest import REPOSITORY
from benchmarks.evaluation import evaluation_table
from benchmarks.graph import graph_table
from benchmarks.machine import describe
from benchmarks.modality import modality_table
from benchmarks.search import search_table
from benchmarks.tracking import tracking_table
from benchmarks.training import training_table
from foundation.files import write_atomic, write_json_atomic

PAGE = REPOSITORY / "docs" / "benchmarks.md"
Data = dict[str, Any]


def results_path(directory: Path, scale: str) -> Path:
    """Where the results of a scale are kept."""
    return directory / f"results-{scale}.json"


def load(directory: Path, scale: str) -> Data:
    """Part -> {machine, data} of what has been measured so far."""
    path = results_path(directory, scale)
    return json.loads(path.read_text()) if path.exists() else {}


def keep(directory: Path, scale: str, part: str, data: Any) -> None:
    """Add one part's result, with the machine as it is now."""
    results = load(directory, scale) | {part: {"machine": asdict(describe(directory)), "data": data}}
    write_json_atomic(results_path(directory, scale), results)


def sections(results: Data, scale: str) -> dict[str, list[str]]:
    """Mark -> the section under it, of every part that has been measured: each tells when and on what."""
    data = {part: found["data"] for part, found in results.items()}
    found = {}
    for heading, needs, words, table in SECTIONS:
        if all(need in data for need in needs):
            last = results[needs[0]]["machine"]
            title = heading.replace("{scale}", scale)
            taken = f"Taken on {last['date']}, load {last['load']} at the end."
            lines = [f"### {title}", "", *words, taken, *machine_words(last), "", *table(data)]
            found[f"bench {heading.replace(' {scale}', '').replace(' ', '-').lower()}"] = [line.replace("{scale}", scale) for line in lines]
    return found


SECTIONS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], Callable[[Data], list[str]]], ...] = (
    (
        "Whole merges of {scale} bf16 checkpoints",
        ("methods", "start"),
        (
            "Both sides read the same configuration file. Whole processes in turn; median (least–most) wall seconds; page cache warm,",
            "nothing to flush before each run, output to the same disk. Anonymous memory is the most that the process tree held at once;",
            "mapped page cache is not in it. Linear and SLERP read two checkpoints, the others a base and two. This project's seconds",
            "include SHA-256 of the output, flushing it to disk (fsync) and the NaN gate; mergekit does none of these. mergekit is given",
            "the options that were fastest in a run of each on linear, and neither model card nor tokenizer to write; this project writes",
            "files of the same 500 MB (`--max-shard-size 500MB`), which are hashed side by side, and by default one file, which is not.",
            "Equal bits: the share of elements that are the same in both outputs; all is computed in float32 here, in bfloat16 by mergekit",
            "(but for linear and SLERP), which is its usual and faster way.",
        ),
        lambda data: tables.methods_table(data["methods"], data["start"]),
    ),
    (
        "Against plain reads and writes",
        ("methods", "start"),
        (
            "`benchmarks/floor.py` reads both sources and writes as many bytes as the output has, by preadv and pwrite of 1 MiB blocks,",
            "and does nothing else, but for a flush to disk where that is said (which this project's merge includes, too). Its process",
            "imports next to nothing.",
        ),
        lambda data: tables.floor_table(data["methods"]["linear"], data["start"]) if "linear" in data["methods"] else [],
    ),
    ("Starting", ("start",), ("Imports, and merges too small to take time.",), lambda data: tables.start_table(data["start"])),
    (
        "Workers",
        ("scaling",),
        ("Seconds of the merge alone on workers that are up (processes forked from one, or Ray actors), medians, all in turn.",),
        lambda data: tables.scaling_table(data["scaling"]),
    ),
    (
        "The NaN gate",
        ("gate",),
        ("The same merge with and without `allow_nonfinite`, in turn, in one process; the share is of these seconds.",),
        lambda data: tables.gate_table(data["gate"]),
    ),
    (
        "Under a memory limit",
        ("limits",),
        (
            "Each process may reserve 1 GB of private writable memory (RLIMIT_DATA, which counts no page cache), and the merges read",
            "several times that.",
        ),
        lambda data: tables.limits_table(data["limits"]),
    ),
    (
        "Plans of large models",
        ("planning",),
        ("Three sources: true headers, holes in place of weights. Everything is planned, down to the last work item.",),
        lambda data: tables.planning_table(data["planning"]),
    ),
    (
        "One stage of learning",
        ("training",),
        (
            "The digits model, wider and deeper (3.2 M weights), language model trained, batch 64, one thread each, float32. The script",
            "uses the same model, examples, settings and collator (`benchmarks/training_alone.py`); samples per second from the second",
            "epoch on, processes in turn, median (least–most). On Ray: a stage of 8 steps with one worker, several on one Ray.",
        ),
        lambda data: training_table(data["training"]),
    ),
    (
        "Modality experts",
        ("modality",),
        (
            "One thread, float32, random weights, pixels of 224 x 224 (197 tokens an image); seconds of one pass, processes in turn,",
            "median (least–most). A step is forward, backward and AdamW on the image path, of 16 images (tiny: 12 layers of 192) or 4",
            "(base: 12 of 768), without stochastic depth. Grams are of the inputs of a layer's four linear maps, of 41 images (tiny) or",
            "16 (base), as `trainers/modality/statistics/` measures them. With states of width h and an MLP of 4 h, a layer's products",
            "are 24 h² for a token and its Grams, symmetric, 19 h². So where products take all the time, measuring every token cannot",
            "run at more than 24 / 43 = 0.56 of the forward pass's own rate, and every second token (`every: 2`) at 0.72.",
        ),
        lambda data: modality_table(data["modality"]),
    ),
    (
        "An alpha search",
        ("search",),
        (
            "The quick start's model (0.8 M weights), ten tasks of 200 validation samples, one thread per worker; seconds without imports",
            "and without starting Ray, processes in turn, medians. Ratios of 101 points are per point.",
        ),
        lambda data: search_table(data["search"]),
    ),
    (
        "Evaluation",
        ("evaluation",),
        (
            "Untrained digits models (an answer seldom ends early), three tasks with answers of up to 8 and 40 tokens, float32, one thread",
            "each; samples per second from the checkpoint on disk to the scores, without imports and without starting Ray, processes in",
            "turn, median (least–most). The loop (`benchmarks/evaluation_alone.py`) asks the same questions and scores them the same way.",
            "Workers on Ray ask in smaller batches, so that there is something to share.",
        ),
        lambda data: evaluation_table(data["evaluation"]),
    ),
    (
        "The graph",
        ("graph",),
        (
            "`experiments/digits_wise_ft.yaml`, whole processes in turn, in empty directories, one thread per step (two while the base",
            "is made); median (least–most). The plain process keeps no records, digests or reports and starts neither Ray nor MLflow",
            "(`benchmarks/graph_alone.py`); all end with the same bytes. A stage of nothing is four steps that write a small file, as a",
            "stage has a fine-tune, a merge and two evaluations; four of them run side by side where they can. The stages' seconds run",
            "from the base's end to the last step's end: the base is one long step that nothing can run beside.",
        ),
        lambda data: graph_table(data["graph"]),
    ),
    (
        "Tracking",
        ("tracking",),
        (
            "A stage of the digits model on one worker slot: 200 steps of 32 with a point of three values every second step, a merge, two",
            "evaluations; seconds from the fine-tune's start to the last evaluation's end, by the steps' records, stages in turn on one",
            "Ray, median (least–most). What is tracked is also looked at, every 5 s, as by default. All end with the same model. The end",
            "of a run is what its command waits until MLflow has everything, after the report. `sync` brings a finished run to a new",
            "experiment: a process that loads MLflow, writes runs, models and scores, and the points of its journal.",
        ),
        lambda data: tracking_table(data["tracking"]),
    ),
)


def machine_words(machine: Data) -> list[str]:
    """What it was measured on, in a sentence or two."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB, Linux {machine['kernel']}, "
        f"{machine['file_system']}.",
        f"Python {machine['python']}, {versions}.",
    ]


def write_section(mark: str, lines: list[str], page: Path = PAGE) -> None:
    """Put `lines` between the marks of that name in the page, at its end if it has none yet."""
    begin, end = (f"<!-- {mark}: {edge} of what `make {mark.split()[0]}` writes -->" for edge in ("begin", "end"))
    text = page.read_text()
    section = "\n".join([begin, *lines, end])
    if begin in text:
        before, rest = text.split(begin, 1)
        text = before + section + rest.split(end, 1)[1]
    else:
        text = text.rstrip("\n") + "\n\n" + section + "\n"
    write_atomic(page, text)


def parity_section(lines: list[str]) -> list[str]:
    """The section on agreement with mergekit."""
    return [
        "## The numbers against mergekit's",
        "",
        "One small Llama-shaped model, the same configuration given to mergekit 0.1.5 and to this project (`dtype: float32`, `out_dtype`",
        "as shown). A last place is the distance of neighbouring values of the output's dtype; what float32 sums may differ by (2^-20 of",
        'the tensor\'s largest value; 2^-18 for nuslerp and karcher, 2^-16 for sce) is taken off first. "Differ by choice" are elements',
        "where a method must choose among equals (`benchmarks/choices.py` finds them from the sources); the columns behind it are about",
        "all others. Command: `make parity`.",
        "",
        *lines,
    ]
