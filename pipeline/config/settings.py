"""From an experiment's YAML to typed values: what every recipe's configuration is made of. `complaints.py` words the errors.

Each recipe has a configuration class built from the parts here. Unknown keys are errors. Reading a configuration imports neither
torch nor Ray, so `validate` answers in a fraction of a second.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from evaluators.suite import Suite
from foundation.errors import ConfigError
from models.parts import parse_parts
from pipeline.config.complaints import is_what, sentences
from pipeline.config.yaml_file import YamlFile
from pipeline.step import Resources
from pipeline.tracking.backend import tracking_uri
from tasks.registry import get_task
from tasks.task import Split
from trainers.pretrain_spec import DigitsPretraining, Phase
from trainers.spec import TrainSpec, check_workers, default_learning_rate

Checked = TypeVar("Checked")


def _as_value_error(check: Callable[[Checked], object]) -> AfterValidator:
    """Turn a library's ConfigError into pydantic's kind of error, so that it is reported with its line."""

    def validate(value: Checked) -> Checked:
        try:
            check(value)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return value

    return AfterValidator(validate)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"name is {name[:60]!r}, but a run's directory is called after it: give up to {MAX_NAME} letters, digits or any of ._-=+, "
            "beginning with a letter or digit"
        )
    if name == "report":
        raise ConfigError("name is 'report', where reports on several runs are written; choose another")


def _check_tracking(uri: str) -> None:
    tracking_uri(uri, Path())


def _check_parts(value: Any) -> Any:
    if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(part, str) for part in value)):
        raise ValueError(f"mm_tunable_parts {is_what(value)}; name parts, e.g. mm_mlp_adapter,mm_language_model")
    return value


MAX_NAME = 120
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._=+-]{{0,{MAX_NAME - 1}}}")

TaskName = Annotated[str, _as_value_error(get_task)]
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
WholeNumber = Annotated[int, Field(ge=0, le=10**9, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class Settings(BaseModel):
    """A group of keys. Unknown ones are refused, values never change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PretrainSettings(Settings):
    """How the digits model is made from its seed, where it is to differ from the recipe in `trainers/pretrain_spec.py`."""

    tower_steps: Count | None = None
    language_steps: Count | None = None
    most_samples: Count | None = None  # of each task in the mixture
    threads: Count = 2

    def recipe(self) -> DigitsPretraining:
        """The recipe these settings ask for."""
        recipe = DigitsPretraining()
        return replace(
            recipe,
            tower=_shortened(recipe.tower, self.tower_steps),
            language=_shortened(recipe.language, self.language_steps),
            samples=tuple((task, min(count, self.most_samples or count)) for task, count in recipe.samples),
        )


def _shortened(phase: Phase, steps: int | None) -> Phase:
    return phase if steps is None else replace(phase, steps=steps, warmup_steps=min(phase.warmup_steps, steps))


BASE_FORMS = "give a checkpoint (base: path/or/hub-id) or base: {pretrain: digits_llava}"


class Base(Settings):
    """The model everything starts from: a checkpoint (directory or hub id `org/name@revision`), or one made here from a seed."""

    checkpoint: Annotated[str, Field(min_length=1)] | None = None
    pretrain: Literal["digits_llava"] | None = None
    settings: PretrainSettings = PretrainSettings()

    @model_validator(mode="before")
    @classmethod
    def _plain_text(cls, value: Any) -> Any:
        if value == "digits_llava" and not Path(value).exists():
            raise ValueError("'digits_llava' is not a checkpoint but the model that is made here; write base: {pretrain: digits_llava}")
        if not isinstance(value, str | dict):
            raise ValueError(f"base {is_what(value)}; {BASE_FORMS}")
        return {"checkpoint": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one(self) -> "Base":
        if self.checkpoint is None and self.pretrain is None:
            raise ValueError(f"base names no model; {BASE_FORMS}")
        if self.checkpoint is not None and self.pretrain is not None:
            raise ValueError(f"base names two models, checkpoint {self.checkpoint!r} and pretrain {self.pretrain!r}; keep one of them")
        if self.checkpoint and self.settings != PretrainSettings():
            raise ValueError("settings belong to pretrain: digits_llava; a checkpoint is taken as it is, so leave them out")
        return self


class Train(Settings):
    """One stage of fine-tuning. `learning_rate` left out is the seed system's for the chosen parts (2e-5 full, 5e-6 MLP only)."""

    mm_tunable_parts: Annotated[str | list[str], BeforeValidator(_check_parts)] = "mm_mlp_adapter,mm_language_model"
    mm_language_model_train_mlp_only: Flag = False
    learning_rate: Positive | None = None
    max_steps: Count | None = None
    epochs: Positive = 1.0
    samples: Count | None = None
    batch_size: Count = 32
    micro_batch_size: Count | None = None
    weight_decay: NotNegative = 0.0
    warmup_ratio: Fraction = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    max_grad_norm: Positive = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Count = 1
    save_steps: Count = 50
    log_steps: Count = 10
    workers: Count = 1
    gpus: NotNegative = 0
    max_failures: WholeNumber = 3

    @model_validator(mode="after")
    def _consistent(self) -> "Train":
        try:
            check_workers(self.spec(seed=0), self.workers)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def spec(self, seed: int) -> TrainSpec:
        """The stage as the trainers take it."""
        parts = parse_parts(self.mm_tunable_parts, self.mm_language_model_train_mlp_only)
        shared = {item.name for item in fields(TrainSpec)} & set(type(self).model_fields) - {"learning_rate"}
        rate = self.learning_rate if self.learning_rate is not None else default_learning_rate(parts)
        return TrainSpec(parts=parts, learning_rate=rate, seed=seed, **{name: getattr(self, name) for name in sorted(shared)})

    def resources(self) -> Resources:
        """What each training worker gets."""
        return Resources(cpus=self.threads, gpus=self.gpus, workers=self.workers, max_failures=self.max_failures)


class Evaluation(Settings):
    """How models are asked: the same samples for every model, answers generated greedily."""

    samples: Count = 300
    split: Literal["test", "validation"] = "test"
    batch_size: Count = 100
    threads: Count = 1
    gpus: NotNegative = 0

    def suite(self, stream: list[str], held_out: list[str]) -> Suite:
        """The tasks that are learned one after another, and those that must not be forgotten."""
        named = {"stream": tuple(map(get_task, stream)), "held_out": tuple(map(get_task, held_out))}
        return Suite(**named, split=Split(self.split), samples=self.samples)


class MergeWork(Settings):
    """How a merge is spread: over so many actors, or in the step's own process at 0. The bytes are the same."""

    actors: WholeNumber = 2


class Tracking(Settings):
    """Where MLflow keeps runs. Left out: `MLFLOW_TRACKING_URI`, else an SQLite file in the workspace."""

    uri: Annotated[str, _as_value_error(_check_tracking)] | None = None
    experiment: str | None = None


class Experiment(Settings):
    """What every experiment has, whatever its recipe."""

    recipe: str
    name: Annotated[str, _as_value_error(_check_name)]
    workspace: Path = Path()
    tracking: Tracking = Tracking()


class Stream(Settings):
    """A sequence of tasks, one stage each, on one base model: what `sequential` and `wise_ft` share."""

    base: Base
    seed: Seed = 0
    tasks: Annotated[list[TaskName], Field(min_length=1)]
    held_out: list[TaskName] = []
    train: Train = Train()
    evaluate: Evaluation = Evaluation()

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

    def suite(self) -> Suite:
        """The questions every model of this experiment is asked."""
        return self.evaluate.suite(self.tasks, self.held_out)


Model = TypeVar("Model", bound=Settings)


def validated(
    model: type[Model], file: YamlFile, data: dict[str, Any] | None = None, relatives: Mapping[str, type[Settings]] | None = None
) -> Model:
    """`data` (else the file's) as `model`; ConfigError with one line per mistake, each with its place in the file.

    `relatives` are other recipes' configurations by name: a key that only they know is said to be theirs.
    """
    try:
        return model.model_validate(file.data if data is None else data)
    except ValidationError as error:
        raise ConfigError("\n".join(sentences(model, file, error.errors(), relatives or {}))) from error
