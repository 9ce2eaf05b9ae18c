"""The keys of tasks that other harnesses ask: `harness`, in what experiments and suite files say of evaluation.

harness:
  lm_eval:
    tasks: [arc_easy, {task: gsm8k, metric: "exact_match,strict-match", shots: 5, name: gsm8k_strict}]
    network: true                     # whether it may fetch data; else it runs offline
  lmms_eval: {tasks: [my_charts], directory: my_tasks, allow_code: true, python: /envs/lmms/bin/python}

Each harness has an environment of its own (`make harness`); nothing of it is imported here.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from evaluators.harness.environment import interpreter, versions
from evaluators.harness.known import code_digest
from evaluators.harness.spec import Harness, HarnessTask
from foundation.errors import ConfigError
from pipeline.config.kinds import Count, Flag, Settings, WholeNumber

SUFFIXES = (".yaml", ".yml")


class NamedTask(Settings):
    """One task of a harness: by its name there, or with the metric that is its score, its shots, and a name of its own in our tables."""

    task: Annotated[str, Field(min_length=1)]
    name: str = ""
    metric: str = ""
    shots: WholeNumber | None = None


def _named(value: Any) -> Any:
    """A task that is only named, as one with keys."""
    return {"task": value} if isinstance(value, str) else value


class HarnessKeys(Settings):
    """What one harness is asked. `directory` holds tasks of the user's own: files that name code, so `allow_code` must say yes."""

    tasks: Annotated[list[Annotated[NamedTask, BeforeValidator(_named)]], Field(min_length=1)]
    python: Annotated[str, Field(min_length=1)] | None = None
    directory: Annotated[str, Field(min_length=1)] | None = None
    allow_code: Flag = False
    network: Flag = False
    chat_template: Flag = False
    batch_size: Count = 1

    @model_validator(mode="after")
    def _code_is_allowed(self) -> "HarnessKeys":
        if self.directory and not self.allow_code:
            raise ValueError(
                f"directory {self.directory} holds tasks of your own, and such files run code on this machine; "
                "read them, then set allow_code: true"
            )
        if self.allow_code and not self.directory:
            raise ValueError("allow_code is for a directory of tasks of your own; name the directory, or leave allow_code out")
        return self


class HarnessSettings(Settings):
    """The harnesses of a suite. Their tasks are held out: they are asked, and never trained."""

    lm_eval: HarnessKeys | None = None
    lmms_eval: HarnessKeys | None = None

    @model_validator(mode="after")
    def _honoured(self) -> "HarnessSettings":
        try:
            named = [task.name for task in _tasks(self)]
        except ConfigError as error:
            raise ValueError(str(error)) from error
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two tasks are called {twice!r} in our tables; give one of them another name (name: …)")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of our tables that these tasks are, in order."""
        return tuple(task.name for task in _tasks(self))


def harness_tasks(settings: HarnessSettings | None, base: Path = Path()) -> tuple[HarnessTask, ...]:
    """The tasks as values, ready to be asked. `directory` and `python` count from `base`. Starts each harness's interpreter once (0.1 s).

    ConfigError where an interpreter is missing, or has no harness or another version of it, or a directory holds no tasks.
    """
    return tuple(_tasks(settings, base)) if settings is not None else ()


def _tasks(settings: HarnessSettings, base: Path | None = None) -> Iterator[HarnessTask]:
    """The tasks; without `base` nothing outside the settings is looked at."""
    for harness in Harness:
        keys: HarnessKeys | None = getattr(settings, harness.value)
        if keys is None:
            continue
        found = _environment(harness, keys, base) if base is not None else {}
        for each in keys.tasks:
            yield HarnessTask(
                name=each.name or each.task,
                harness=harness,
                task=each.task,
                metric=each.metric,
                shots=each.shots,
                chat_template=keys.chat_template,
                batch_size=keys.batch_size,
                network=keys.network,
                **found,
            )


def _environment(harness: Harness, keys: HarnessKeys, base: Path) -> dict[str, str]:
    """The fields of a task that say where the harness and the user's directory are, and what they are."""
    python = interpreter(harness, keys.python, base)
    found = {"python": str(python), "version": versions(harness, python)[harness.value]}
    if keys.directory is None:
        return found
    directory = Path(os.path.abspath(base / Path(keys.directory).expanduser()))
    if not directory.is_dir():
        raise ConfigError(f"harness.{harness.value}.directory: {directory} is not a directory; name the one that holds your task files")
    if not any(path.suffix in SUFFIXES for path in directory.rglob("*")):
        raise ConfigError(f"harness.{harness.value}.directory: {directory} holds no task files (*.yaml); name the directory that does")
    return {**found, "directory": str(directory), "code": code_digest(directory)}
