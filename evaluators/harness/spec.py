"""Which tasks of another harness a suite asks, as values. Light to import."""

from dataclasses import dataclass, field
from enum import StrEnum

from foundation.errors import ConfigError


class Harness(StrEnum):
    """The harnesses we can run. Each is installed in an environment of its own."""

    LM_EVAL = "lm_eval"
    LMMS_EVAL = "lmms_eval"


@dataclass(frozen=True)
class HarnessTask:
    """One task of a harness as a column of our tables: `name` there, `task` in the harness.

    `metric`: which of the task's metrics is the score ("" = the first it reports that lies in 0 to 1, in the harness's order).
    `code`: SHA-256 of the user's task directory it is read from, "" for a task the harness brings; `directory` is where that lies. Such a
    directory counts as code: it runs only where the suite allows it. `python` is the harness's interpreter.
    `version`: of the harness package; part of what makes the score.
    """

    name: str
    harness: Harness
    task: str
    metric: str = ""
    shots: int = 0
    code: str = ""
    version: str = ""
    directory: str = field(default="", compare=False, repr=False, metadata={"execution": True})
    python: str = field(default="", compare=False, repr=False, metadata={"execution": True})

    def __post_init__(self) -> None:
        if not self.name or not self.task:
            raise ConfigError(f"a harness task needs a name and the harness's own name of it, not {self.name!r} and {self.task!r}")
        if self.shots < 0:
            raise ConfigError(f"harness task {self.name!r}: shots is {self.shots}; give 0 or more")
