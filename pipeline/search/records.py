"""The trials of a search that have ended, in a file of their own: one line each, written through to disk before the next.

So a search that is killed goes on with what it had. The first line says which search it is; a last line that was cut off is dropped.
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
from pipeline.search.setting import Setting
from pipeline.search.spec import Trial
from pipeline.step import canonical

FORMAT = 1
NAME = "trials.jsonl"


@dataclass(frozen=True)
class Ended:
    """A trial that has ended, and its value after each part of the samples: what halving goes by."""

    trial: Trial
    course: tuple[float, ...]


def identity_of(setting: Setting) -> str:
    """SHA-256 of what a search's scores follow from; checkpoints count by their files' names, sizes and times of change."""
    asked = {"suite": setting.suite, "new": setting.new, "batch_size": setting.batch_size, "threads": setting.threads}
    told = canonical({"spec": setting.spec, **asked}, "the search")
    places = [[name, files_of(place)] for name, place in (*setting.sources, *([("base", setting.base)] if setting.base else []))]
    return hashlib.sha256(json.dumps([FORMAT, told, places], sort_keys=True).encode()).hexdigest()


def files_of(place: Path) -> list[list[Any]]:
    """Name, size and time of change of a checkpoint's files."""
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(place.iterdir()) if path.is_file()]


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
        """Append a trial; it is on disk when this returns."""
        self.write("ab", {"trial": asdict(ended.trial), "course": list(ended.course)})

    def write(self, mode: str, line: Any) -> None:
        """Write one line and flush it."""
        with open(self.path, mode) as file:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def ended_of(line: Mapping[str, Any]) -> Ended:
    """What a line says."""
    fields = dict(line["trial"])
    scores = {task: TaskScore(**score) for task, score in fields.pop("scores").items()}
    return Ended(Trial(**fields, scores=scores), tuple(line["course"]))
