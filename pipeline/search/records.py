"""The trials of a search that have ended, in a file of their own: one line each, written through to disk before the next.

So a search that is killed goes on with what it had. The first line says which search it is; a last line that was cut off is dropped. What
each sample scored lies in files beside it (`answers.py`).
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluators.scores import TaskScore
from foundation.errors import InputError
from foundation.files import write_json_atomic
from pipeline.search.answers import Answers, keep
from pipeline.search.setting import Setting
from pipeline.search.spec import Trial
from pipeline.step import canonical

FORMAT = 1
NAME = "trials.jsonl"
FOUND = "trials.json"
"""Of a search that is complete."""


@dataclass(frozen=True)
class Ended:
    """A trial that has ended, its value after each part of the samples, which halving goes by, and what each sample scored; None once that
    is written."""

    trial: Trial
    course: tuple[float, ...]
    answers: Answers | None = None


def identity_of(setting: Setting) -> str:
    """SHA-256 of what a search's scores follow from; checkpoints count by their files' names, sizes and times of change."""
    asked = {"suite": setting.suite, "new": setting.new, "batch_size": setting.batch_size, "threads": setting.threads}
    told = canonical({"spec": setting.spec, **asked}, "the search")
    places: list[Any] = [[name, files_of(place)] for name, place in (*setting.sources, *([("base", setting.base)] if setting.base else []))]
    places += [["statistics", name, file_of(place)] for name, place in setting.statistics]
    return hashlib.sha256(json.dumps([FORMAT, told, places], sort_keys=True).encode()).hexdigest()


def files_of(place: Path) -> list[list[Any]]:
    """Name, size and time of change of a checkpoint's files."""
    return [file_of(path) for path in sorted(place.iterdir()) if path.is_file()]


def file_of(path: Path) -> list[Any]:
    """Name, size and time of change of a file."""
    return [path.name, path.stat().st_size, path.stat().st_mtime_ns]


class Records:
    """`trials.jsonl` in `scratch`, of the search of this `identity`. InputError if it is another search's, or damaged."""

    def __init__(self, scratch: Path, identity: str) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self.path = scratch / NAME
        self.identity = identity

    def read(self) -> dict[int, Ended]:
        """Number -> what has ended; the file is cut back to whole lines, or begun."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.decode().splitlines()
        if not lines:
            self.write("wb", {"format": FORMAT, "search": self.identity})
            return {}
        try:
            head = json.loads(lines[0])
            found = [ended_of(json.loads(line)) for line in lines[1:]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self.path} is damaged ({error}); remove it, and the search begins anew") from error
        if head != {"format": FORMAT, "search": self.identity}:
            raise InputError(f"{self.path} holds the trials of another search; remove it, or give the search another scratch directory")
        if len(whole) < len(content):
            os.truncate(self.path, len(whole))
        return {each.trial.number: each for each in found}

    def add(self, ended: Ended) -> None:
        """Append a trial; it and its answers are on disk when this returns."""
        if ended.answers is not None:
            keep(self.path.parent, ended.trial.number, ended.answers)
        self.write("ab", {"trial": asdict(ended.trial), "course": list(ended.course)})

    def write(self, mode: str, line: Any) -> None:
        """Write one line and flush it."""
        with open(self.path, mode) as file:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def ended_of(line: Mapping[str, Any]) -> Ended:
    """What a line says."""
    return Ended(trial_of(line["trial"]), tuple(line["course"]))


def trial_of(entry: Mapping[str, Any]) -> Trial:
    """A trial as it was written."""
    scores = {task: TaskScore(**score) for task, score in entry["scores"].items()}
    return Trial(**{**entry, "scores": scores})


@dataclass(frozen=True)
class Found:
    """What a whole search came to: all trials by number, and the one that was picked."""

    trials: tuple[Trial, ...]
    pick: Trial


def write_found(directory: Path, found: Found) -> None:
    """Write it into a directory."""
    write_json_atomic(directory / FOUND, {"trials": [asdict(trial) for trial in found.trials], "pick": found.pick.number})


def read_found(directory: Path) -> Found:
    """What `write_found` wrote there; InputError where it is not there or damaged."""
    path = directory / FOUND
    try:
        content = json.loads(path.read_text())
        trials = tuple(trial_of(each) for each in content["trials"])
        return Found(trials, next(trial for trial in trials if trial.number == content["pick"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        told = str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read as a search ({told}); remove {directory} from the store and run again") from error
