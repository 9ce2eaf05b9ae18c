"""Which tasks of another harness a suite asks, as values. Light to import."""

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from foundation.errors import ConfigError

_NAME = re.compile(r"[\w.:+-]+")


class Harness(StrEnum):
    """The harnesses we can run. Each is installed in an environment of its own."""

    LM_EVAL = "lm_eval"
    LMMS_EVAL = "lmms_eval"


def _execution(default: Any) -> Any:
    """A field that says how the task runs, not what it is."""
    return field(default=default, compare=False, repr=False, metadata={"execution": True})


@dataclass(frozen=True)
class HarnessTask:
    """One task of a harness as a column of our tables: `name` there, `task` in the harness (a task or a group of tasks).

    `metric`: which of the task's metrics is the score, as "acc" or, with its filter, "exact_match,strict-match" ("" = the first it reports
    that lies in 0 to 1, in the harness's order). `shots`: worked examples before each question (None = as many as the task itself says).
    `chat_template`: whether lm-eval puts the question by the model's chat template; lmms-eval always does.
    `batch_size` is part of what makes the last bits, so it is part of the task.
    `code`: SHA-256 of the user's task directory it is read from, "" for a task the harness brings; `directory` is where that lies. Such a
    directory counts as code: it runs only where the suite allows it. `python` is the harness's interpreter; `network`: whether the harness
    may fetch data. `version`: of the harness package; part of what makes the score.
    """

    name: str
    harness: Harness
    task: str
    metric: str = ""
    shots: int | None = None
    chat_template: bool = False
    batch_size: int = 1
    code: str = ""
    version: str = ""
    directory: str = _execution("")
    python: str = _execution("")
    network: bool = _execution(False)

    def __post_init__(self) -> None:
        if not self.name or not self.task:
            raise ConfigError(f"a harness task needs a name and the harness's own name of it, not {self.name!r} and {self.task!r}")
        if "/" in self.name:
            raise ConfigError(f"harness task {self.name!r}: a name has no '/'; the columns of its further metrics have one")
        if not _NAME.fullmatch(self.task) or self.task.startswith("-") or self.task.endswith((".yaml", ".yml", ".json")):
            raise ConfigError(
                f"harness task {self.name!r}: {self.task!r} is not the name of one task; a harness would read it as a pattern, a list or a "
                "file. Name one task, and give the directory of tasks of your own as `directory`"
            )
        if self.shots is not None and self.shots < 0:
            raise ConfigError(f"harness task {self.name!r}: shots is {self.shots}; give 0 or more")
        if self.batch_size < 1:
            raise ConfigError(f"harness task {self.name!r}: batch_size is {self.batch_size}; give 1 or more")
        if self.harness is Harness.LMMS_EVAL and (self.chat_template or self.batch_size != 1):
            raise ConfigError(
                f"harness task {self.name!r}: lmms_eval asks one question at a time, by the model's own chat template; "
                "leave chat_template and batch_size out"
            )
        if self.directory and not self.code:
            raise ConfigError(f"harness task {self.name!r}: it is read from {self.directory}, whose files have no digest; give `code`")
