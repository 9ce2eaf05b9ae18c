"""A suite in a file of its own: what models are asked, shared by experiments and by `evaluate` alone.

targets: [cub200, pixmocount]            # what experiments may train on, one stage each
held_out: [ai2d, chartqa]                # what must not be forgotten; never trained
data: {ai2d: {benchmark: ai2d, directory: data/ai2d}, ...}
evaluate: {samples: 1000, batch_size: 8}

An experiment that says `suite: FILE` has these keys, with its own laid over them; the tasks it trains are targets of the suite.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import field_validator, model_validator

from evaluators.suite import Suite
from foundation.errors import ConfigError
from foundation.hints import unknown
from pipeline.config.data_settings import Data, check_names
from pipeline.config.kinds import Settings, validated
from pipeline.config.settings import Evaluation
from pipeline.config.yaml_file import Kind, Place, YamlFile, read_yaml
from tasks.benchmarks.task import BenchmarkTask
from tasks.registry import TASKS, get_task
from tasks.task import Split, Task

SUITE = Kind("a", "suite", "suites/digits.yaml", "targets: [parity, count]")
SHARED = ("data", "evaluate")
"""The keys that an experiment adds to, name by name; of `held_out` it has its own or the suite's."""


class SuiteFile(Settings):
    """What a suite file says."""

    targets: list[str] = []  # noqa: RUF012
    held_out: list[str] = []  # noqa: RUF012
    data: dict[str, Data] = {}  # noqa: RUF012
    evaluate: Evaluation = Evaluation()

    @field_validator("data")
    @classmethod
    def _names_of_its_own(cls, value: dict[str, Data]) -> dict[str, Data]:
        check_names(value)
        return value

    @model_validator(mode="after")
    def _tasks(self) -> "SuiteFile":
        known = [*self.data, *TASKS]
        for key, names in (("targets", self.targets), ("held_out", self.held_out)):
            for name in names:
                if name not in known:
                    raise ValueError(f"{key}: {unknown('task', name, known)} (files of yours: see data)")
        if twice := [name for name, count in Counter((*self.targets, *self.held_out)).items() if count > 1]:
            raise ValueError(f"targets and held_out name {twice[0]!r} more than once; name each task once, in one of the two lists")
        if not self.targets and not self.held_out and not self.evaluate.harness:
            raise ValueError("targets and held_out name no task; name at least one")
        return self

    def task(self, name: str, split: Split, cache: Path | None = None) -> Task:
        """The task that the suite calls `name`, for one split. What the other splits show is not compared: nothing is learned here."""
        if name not in self.data:
            return get_task(name)
        task = self.data[name].task(name, cache).only(split)
        return replace(task, others="") if isinstance(task, BenchmarkTask) else task

    def suite(self, only: list[str] | None = None, cache: Path | None = None) -> Suite:
        """What a model is asked: all of it, or the tasks of `only`. Raises ConfigError and InputError as the tasks do."""
        split = Split(self.evaluate.split)
        chosen = [[name for name in names if only is None or name in only] for names in (self.targets, self.held_out)]
        return self.evaluate.suite(*((self.task(name, split, cache) for name in names) for names in chosen))


def read_suite(path: Path) -> SuiteFile:
    """The suite in a file; ConfigError with the place of what is wrong."""
    return validated(SuiteFile, read_yaml(path, SUITE))


def lay_suite_under(file: YamlFile) -> None:
    """Put the keys of the suite file that an experiment names (at the top, or in `common`) under the experiment's own.

    ConfigError where the suite is not one, or an experiment trains a task that is no target of it.
    """
    for room in ((), ("common",)):
        keys = file.value(room)
        if isinstance(keys, dict) and "suite" in keys:
            _lay_under(file, keys, room)


def _lay_under(file: YamlFile, keys: dict[str, Any], room: Place) -> None:
    named = keys.pop("suite")
    if not isinstance(named, str):
        raise file.error((*room, "suite"), "suite names a file, e.g. suite: suites/digits.yaml")
    try:
        told = read_yaml(Path(named).expanduser(), SUITE)
        suite = validated(SuiteFile, told)
    except ConfigError as error:
        raise ConfigError(f"{file.at((*room, 'suite'))}: suite: {error}") from error
    for key in SHARED:
        keys[key] = {**(told.data.get(key) or {}), **(keys.get(key) or {})}
    keys.setdefault("held_out", list(suite.held_out))
    for index, name in enumerate(keys.get("tasks") or ()):
        if name not in suite.targets:
            raise file.error((*room, "tasks", index), f"{unknown('target', str(name), suite.targets)} (the targets of suite {named})")
