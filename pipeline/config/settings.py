"""From an experiment's YAML to typed values: what every recipe's configuration is made of. `complaints.py` words the errors.

Each recipe has a configuration class built from the parts here. Unknown keys are errors. Reading a configuration imports neither
torch nor Ray, so `validate` answers in a fraction of a second.
"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from evaluators.suite import Suite
from foundation.errors import ConfigError
from foundation.hints import unknown
from pipeline.config.base_settings import Base
from pipeline.config.data_settings import Data, check_names
from pipeline.config.harness_settings import HarnessSettings, harness_tasks
from pipeline.config.kinds import Count, NotNegative, Seed, Settings, WholeNumber, as_value_error
from pipeline.config.learning import check_learning
from pipeline.config.strategy_settings import StrategySettings
from pipeline.config.train_settings import Train
from pipeline.objects.bucket import open_bucket
from pipeline.tracking.addresses import check_label
from pipeline.tracking.backend import tracking_uri
from tasks.registry import TASKS, get_task
from tasks.task import Split, Task


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"name is {name[:60]!r}, but a run's directory is called after it: give up to {MAX_NAME} letters, digits or any of ._-=+, "
            "beginning with a letter or digit"
        )
    if name == "report":
        raise ConfigError("name is 'report', where reports on several runs are written; choose another")


def _check_objects(uri: str) -> None:
    open_bucket(uri)


def _check_tracking(uri: str) -> None:
    tracking_uri(uri, Path())


def _check_usage(seconds: float) -> None:
    if 0 < seconds < LEAST_USAGE:
        raise ConfigError(
            f"tracking.usage is {seconds:g} s, and looking so often is work of its own; give {LEAST_USAGE} or more, or 0 for never"
        )


LEAST_USAGE = 0.1
"""Seconds between two looks at the machine, at least."""
MAX_NAME = 120
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._=+-]{{0,{MAX_NAME - 1}}}")


class Evaluation(Settings):
    """How models are asked: the same samples for every model, answers generated greedily.

    `workers`: so many Ray actors share the samples; 0: the step's own process. The answers are the same. `harness`: tasks that other
    harnesses ask, held out too.
    """

    samples: Count = 300
    split: Literal["test", "validation"] = "test"
    batch_size: Count = 100
    threads: Count = 1
    gpus: NotNegative = 0
    workers: WholeNumber = 0
    harness: HarnessSettings | None = None

    def suite(self, stream: Iterable[Task], held_out: Iterable[Task]) -> Suite:
        """The tasks that are learned one after another, and those that must not be forgotten."""
        return Suite(tuple(stream), tuple(held_out), Split(self.split), self.samples, harness_tasks(self.harness))


class MergeWork(Settings):
    """How a merge is spread: over so many actors, or in the step's own process at 0. The bytes are the same."""

    actors: WholeNumber = 2


class Tracking(Settings):
    """Where MLflow keeps runs, and how much the work may be asked to wait for it.

    `uri` left out: `MLFLOW_TRACKING_URI`, else an SQLite file in the workspace. `wait`: the seconds that a finished run waits at most for
    what is not written yet. `required`: a run whose mirror is not complete by then fails. `usage`: seconds between two looks at the machine
    (0: none). `registered_model`: what merged checkpoints are versions of; left out, it is called as the experiment.
    """

    uri: Annotated[str, as_value_error(_check_tracking)] | None = None
    experiment: Annotated[str, as_value_error(partial(check_label, key="tracking.experiment"))] | None = None
    wait: Annotated[NotNegative, Field(le=10**6)] = 60
    required: bool = False
    usage: Annotated[NotNegative, Field(le=10**5), as_value_error(_check_usage)] = 5
    registered_model: Annotated[str, as_value_error(partial(check_label, key="tracking.registered_model"))] | None = None


class Experiment(Settings):
    """What every experiment has, whatever its recipe.

    `objects`: the URI of an object store that all nodes share; `workspace` is then a directory on each node's own disk.
    """

    recipe: str
    name: Annotated[str, as_value_error(_check_name)]
    workspace: Path = Path()
    objects: Annotated[str, as_value_error(_check_objects)] | None = None
    tracking: Tracking = Tracking()


class Stream(Settings):
    """A sequence of tasks, one stage each, on one base model: what all recipes that learn share."""

    base: Base
    seed: Seed = 0
    data: dict[str, Data] = {}  # noqa: RUF012
    tasks: Annotated[list[str], Field(min_length=1)]
    held_out: list[str] = []  # noqa: RUF012
    train: Train = Train()
    strategy: StrategySettings = StrategySettings(name="fine_tuning")
    evaluate: Evaluation = Evaluation()

    @field_validator("data")
    @classmethod
    def _names_of_its_own(cls, value: dict[str, Data]) -> dict[str, Data]:
        check_names(value)
        return value

    @field_validator("tasks", "held_out")
    @classmethod
    def _known(cls, value: list[str], info: ValidationInfo) -> list[str]:
        known = [*info.data.get("data", {}), *TASKS]
        for index, name in enumerate(value):
            if name not in known:
                raise ValueError(f"{info.field_name}[{index}]: {unknown('task', name, known)} (files of yours: see data)")
        return value

    @field_validator("tasks", "held_out")
    @classmethod
    def _each_once(cls, value: list[str], info: ValidationInfo) -> list[str]:
        twice = [task for task, count in Counter(value).items() if count > 1]
        if twice:
            raise ValueError(f"{info.field_name} names {twice[0]!r} more than once; name each task once")
        both = [task for task in value if info.field_name == "held_out" and task in info.data.get("tasks", [])]
        if both:
            raise ValueError(f"held_out names {both[0]!r}, which is one of the tasks that are learned; keep it in one of the two lists")
        return value

    @model_validator(mode="after")
    def _learnable(self) -> "Stream":
        try:
            check_learning(self.base, self.train, self.strategy)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def task(self, name: str, split: Split, cache: Path | None = None) -> Task:
        """The task that the experiment calls `name`, for one split. One in files is read; findings on them are kept in `cache`."""
        return self.data[name].task(name, cache).only(split) if name in self.data else get_task(name)

    def suite(self, cache: Path | None = None) -> Suite:
        """The questions every model of this experiment is asked."""
        split = Split(self.evaluate.split)
        return self.evaluate.suite(*((self.task(name, split, cache) for name in names) for names in (self.tasks, self.held_out)))
