"""Ask a checkpoint the tasks of other harnesses: each harness runs in its own environment, as a subprocess, and is read into our records.

Tasks that can share a run (same harness, environment, directory, shots, template, batch size) share it, so the model is loaded once for
them. Nothing of a harness is imported into this process.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluators.harness.command import command_of, environment_of
from evaluators.harness.environment import model_class, versions
from evaluators.harness.known import Known, check_code, check_known
from evaluators.harness.process import failure, run_logged
from evaluators.harness.results import Written, find_written, read_task
from evaluators.harness.spec import HarnessTask
from evaluators.scores import Sample, TaskScore
from foundation.errors import ConfigError, InputError
from foundation.files import write_json_atomic

Progress = Callable[[str, int, int], None]

LOG, RESULTS, FINISHED = "log.txt", "results", "finished.json"


@dataclass(frozen=True)
class HarnessAnswers:
    """What harnesses found: column of our tables -> score, every logged document, and the versions that computed it by harness."""

    scores: dict[str, TaskScore] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)


def ask_harness(
    checkpoint: Path, tasks: Sequence[HarnessTask], count: int, work: Path, on_progress: Progress | None = None
) -> HarnessAnswers:
    """The answers of the model in `checkpoint` (a Hugging Face directory) to the first `count` documents of every task, in their order.

    Of a group of tasks, `count` documents of each. Logs and the harness's own files are left in `work`, one directory per run; called again
    with the same `work`, runs that had finished are not run again.
    `on_progress(name, done, total)` counts the requests of a run under its first task, and at the end every task's documents.
    Scores and samples: see `results.read_task`. Refused before any model is loaded (ConfigError, InputError): an environment of another
    version, a task or metric that the harness does not know, a task directory that changed, a checkpoint that it cannot take. A run that
    fails is an InputError, or a ResourceError for want of memory or disk, with the end of its log.
    """
    checkpoint, work = checkpoint.resolve(), work.resolve()
    known = check_harness(checkpoint, tasks, work)
    scores: dict[str, dict[str, TaskScore]] = {}
    samples: dict[str, list[Sample]] = {}
    for index, run in enumerate(shared_runs(tasks, known)):
        place = work / f"{index}-{run[0].harness.value}"
        written = run_once(checkpoint, run, count, place, known[environment_key(run[0])].cuda, on_progress)
        for task in run:
            scores[task.name], samples[task.name] = read_task(written, task)
            if on_progress is not None:
                asked = scores[task.name][task.name].samples
                on_progress(task.name, asked, asked)
    return HarnessAnswers(
        {column: score for task in tasks for column, score in scores[task.name].items()},
        [sample for task in tasks for sample in samples[task.name]],
        {task.harness.value: versions(task.harness, Path(task.python)) for task in tasks},
    )


def environment_key(task: HarnessTask) -> tuple[str, ...]:
    """What tasks share that are looked up together."""
    return (task.harness.value, task.python, task.directory)


def check_harness(checkpoint: Path, tasks: Sequence[HarnessTask], work: Path) -> dict[tuple[str, ...], Known]:
    """All checks before a model is loaded; what each harness knows of its tasks. Raises as `ask_harness`.

    May be called ahead of `ask_harness` with the same `work`, where the harness's answers are kept: nothing is then looked up twice.
    """
    for task in tasks:
        installed = versions(task.harness, Path(task.python))
        has = installed[task.harness.value]
        if task.version and task.version != has:
            raise ConfigError(f"{task.name!r} is to be asked by {task.harness.value} {task.version}, but {task.python} has {has}")
        check_code(task)
        model_class(task.harness, checkpoint, installed)
        if "," in str(work):
            raise InputError(f"{work} has a comma in its path, where {task.harness.value} would cut it; work in another directory")
    work.mkdir(parents=True, exist_ok=True)
    together: dict[tuple[str, ...], list[HarnessTask]] = {}
    for task in tasks:
        together.setdefault(environment_key(task), []).append(task)
    return {key: check_known(run, work / f"known-{index}") for index, (key, run) in enumerate(together.items())}


def shared_runs(tasks: Sequence[HarnessTask], known: dict[tuple[str, ...], Known]) -> list[list[HarnessTask]]:
    """The tasks in runs of a harness, by what a run has once for all its tasks; runs and tasks in the order given.

    A group runs alone: harnesses refuse to ask one task twice in a run, and a task beside a group may be one of its own.
    """
    runs: dict[tuple[object, ...], list[HarnessTask]] = {}
    for task in tasks:
        alone = task.task if known[environment_key(task)].kinds[task.task] == "group" else ""
        key = (*environment_key(task), task.shots, task.chat_template, task.batch_size, task.network, alone)
        runs.setdefault(key, []).append(task)
    return list(runs.values())


def run_once(checkpoint: Path, run: Sequence[HarnessTask], count: int, place: Path, cuda: bool, on_progress: Progress | None) -> Written:
    """One run of a harness on the checkpoint, and what it wrote into `place`. Raises as `ask_harness`.

    What a finished run of the same identity wrote there is taken again; anything else is removed before.
    """
    first = run[0]
    what = f"{first.harness.value} on {', '.join(dict.fromkeys(task.task for task in run))}"
    classed = model_class(first.harness, checkpoint, versions(first.harness, Path(first.python)))
    command = command_of(checkpoint, run, count, place / RESULTS, classed, cuda)
    identity = identity_of(checkpoint, run, command)
    if (place / FINISHED).exists() and json.loads((place / FINISHED).read_text()) == identity:
        kept = find_written(first.harness, place / RESULTS)
        if kept is not None:
            return kept
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)

    def report(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(first.name, done, total)

    report(0, count)
    directory = Path(first.directory) if first.directory else place
    run_logged(command, environment_of(first), directory, place / LOG, what, report)
    written = find_written(first.harness, place / RESULTS)
    if written is None:
        raise failure(place / LOG, what, None)
    write_json_atomic(place / FINISHED, identity)
    return written


def identity_of(checkpoint: Path, run: Sequence[HarnessTask], command: Sequence[str]) -> dict[str, object]:
    """What makes the results of a run, as JSON: the command, the versions, the user's code, and which files the checkpoint had."""
    files = {path.name: path.stat() for path in sorted(checkpoint.iterdir()) if path.is_file()}
    return {
        "command": list(command),
        "versions": versions(run[0].harness, Path(run[0].python)),
        "code": run[0].code,
        "files": {name: [status.st_size, status.st_mtime_ns] for name, status in files.items()},
    }
