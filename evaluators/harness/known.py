"""What a harness knows of the tasks that it is to be asked, found out before any model is loaded; and the digest of task directories."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.harness.command import environment_of
from evaluators.harness.process import run_logged
from evaluators.harness.spec import HarnessTask
from foundation.errors import ConfigError, InputError
from foundation.files import directory_manifest, manifest_digest, write_json_atomic

INSIDE = Path(__file__).with_name("inside.py")
PYTHON_MAKES = "__pycache__"


@dataclass(frozen=True)
class Known:
    """Task -> its kind ("task" or "group"), and whether lmms-eval's torch sees a GPU (lm-eval finds out for itself)."""

    kinds: Mapping[str, str]
    cuda: bool


def check_known(tasks: Sequence[HarnessTask], place: Path) -> Known:
    """Ask the harness for tasks of one environment and directory; its answer and what it printed are left at `place`.json and .txt.

    An answer to the same question that lies there is taken again: looking through thousands of task files takes seconds.
    ConfigError for a task that it lacks, or one without the metric asked for (as far as its file says); InputError where it does not run.
    """
    first = tasks[0]
    names = sorted({task.task for task in tasks})
    question = [first.harness.value, first.python, first.version, first.directory, first.code, *names]
    answer, asked = place.with_suffix(".json"), place.with_suffix(".question.json")
    if not (answer.exists() and asked.exists() and json.loads(asked.read_text()) == question):
        command = [first.python, str(INSIDE), first.harness.value, str(answer), first.directory, *names]
        what = f"asking {first.harness.value} for its tasks"
        run_logged(command, environment_of(first), place.parent, place.with_suffix(".txt"), what)
        write_json_atomic(asked, question)
    told = json.loads(answer.read_text())
    for task in tasks:
        check_task(task, told["tasks"][task.task])
    return Known({name: entry["kind"] for name, entry in told["tasks"].items()}, told.get("cuda", False))


def check_task(task: HarnessTask, entry: Mapping[str, Any]) -> None:
    """ConfigError where what the harness says of a task shows that it cannot be asked."""
    if "kind" not in entry:
        near = f"did you mean {', '.join(map(repr, entry['near']))}?" if entry["near"] else "none of them is like it."
        where = f", those in {task.directory} with them" if task.directory else ""
        raise ConfigError(f"{task.harness.value} has no task {task.task!r} among its {entry['count']}{where}; {near}")
    if entry["kind"] == "tag":
        raise ConfigError(f"{task.harness.value} has {task.task!r} as a tag of several tasks, without a score; name the tasks themselves")
    metric = task.metric.partition(",")[0]
    if metric and entry["metrics"] and metric not in entry["metrics"]:
        raise ConfigError(f"{task.harness.value} task {task.task!r} has no metric {metric!r}; it has {', '.join(entry['metrics'])}")


def code_digest(directory: Path) -> str:
    """SHA-256 over the names and bytes of all files in a task directory, without those that Python makes of them."""
    manifest = directory_manifest(directory)
    return manifest_digest({name: digest for name, digest in manifest.items() if PYTHON_MAKES not in name.split("/")})


def check_code(task: HarnessTask) -> None:
    """InputError where a task's directory is gone or no longer what the task was made of."""
    if not task.directory:
        return
    directory = Path(task.directory)
    if not directory.is_dir():
        raise InputError(f"{directory}, from which {task.name!r} is read, is not there; put it back, or start anew with its new place")
    if code_digest(directory) != task.code:
        raise InputError(f"the files in {directory} changed since {task.name!r} was read from it; start the run again")
