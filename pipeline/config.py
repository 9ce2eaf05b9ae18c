"""From an experiment's YAML to typed values: what every recipe's configuration is made of, and errors that name line and nearest key.

Each recipe has a configuration class built from the parts here. Unknown keys are errors. Reading a configuration imports neither
torch nor Ray, so `validate` answers in a fraction of a second.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from evaluators.suite import Suite
from foundation.errors import ConfigError
from foundation.hints import nearest, unknown
from models.parts import parse_parts
from pipeline.step import Resources, Step
from pipeline.yaml_file import Place, YamlFile
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


TaskName = Annotated[str, _as_value_error(get_task)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


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


class Base(Settings):
    """The model everything starts from: a checkpoint (directory or hub id `org/name@revision`), or one made here from a seed."""

    checkpoint: str | None = None
    pretrain: Literal["digits_llava"] | None = None
    settings: PretrainSettings = PretrainSettings()

    @model_validator(mode="before")
    @classmethod
    def _plain_text(cls, value: Any) -> Any:
        return {"checkpoint": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one(self) -> "Base":
        if (self.checkpoint is None) == (self.pretrain is None):
            raise ValueError("give either a checkpoint (base: path/or/hub-id) or base: {pretrain: digits_llava}, and not both")
        if self.checkpoint and self.settings != PretrainSettings():
            raise ValueError("settings belong to pretrain: digits_llava; a checkpoint is taken as it is")
        return self


class Train(Settings):
    """One stage of fine-tuning. `learning_rate` left out is the seed system's for the chosen parts (2e-5 full, 5e-6 MLP only)."""

    mm_tunable_parts: str | list[str] = "mm_mlp_adapter,mm_language_model"
    mm_language_model_train_mlp_only: bool = False
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    max_steps: Count | None = None
    epochs: Annotated[float, Field(gt=0)] = 1.0
    samples: Count | None = None
    batch_size: Count = 32
    micro_batch_size: Count | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_ratio: Fraction = 0.03
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: Count = 1
    save_steps: Count = 50
    log_steps: Count = 10
    workers: Count = 1
    gpus: Annotated[float, Field(ge=0)] = 0
    max_failures: Annotated[int, Field(ge=0)] = 3

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
    gpus: Annotated[float, Field(ge=0)] = 0

    def suite(self, stream: list[str], held_out: list[str]) -> Suite:
        """The tasks that are learned one after another, and those that must not be forgotten."""
        named = {"stream": tuple(map(get_task, stream)), "held_out": tuple(map(get_task, held_out))}
        return Suite(**named, split=Split(self.split), samples=self.samples)


class MergeWork(Settings):
    """How a merge is spread: over so many actors, or in the step's own process at 0. The bytes are the same."""

    actors: Annotated[int, Field(ge=0)] = 2


class Tracking(Settings):
    """Where MLflow keeps runs. Left out: `MLFLOW_TRACKING_URI`, else an SQLite file in the workspace."""

    uri: str | None = None
    experiment: str | None = None


class Experiment(Settings):
    """What every experiment has, whatever its recipe."""

    recipe: str
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    workspace: Path = Path()
    tracking: Tracking = Tracking()


class Stream(Settings):
    """A sequence of tasks, one stage each, on one base model: what `sequential` and `wise_ft` share."""

    base: Base
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    tasks: Annotated[list[TaskName], Field(min_length=1)]
    held_out: list[TaskName] = []
    train: Train = Train()
    evaluate: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _suite(self) -> "Stream":
        try:
            self.suite()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def suite(self) -> Suite:
        """The questions every model of this experiment is asked."""
        return self.evaluate.suite(self.tasks, self.held_out)


Model = TypeVar("Model", bound=Settings)


def validated(model: type[Model], file: YamlFile, data: dict[str, Any] | None = None) -> Model:
    """`data` (else the file's) as `model`; ConfigError with one line per mistake, each with its place in the file."""
    try:
        return model.model_validate(file.data if data is None else data)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(model, file, error.errors()))) from error


def _sentences(model: type[BaseModel], file: YamlFile, errors: list[ErrorDetails]) -> Iterator[str]:
    for error in errors:
        place: Place = error["loc"]
        key, where = ".".join(map(str, place)), file.at(place)
        known = sorted(_fields_at(model, place[:-1]))
        if error["type"] == "extra_forbidden":
            close = nearest(str(place[-1]), known)
            hint = f"did you mean {close!r}? " if close else ""
            elsewhere = _places_of(model, str(place[-1]))
            hint += f"it belongs under {elsewhere[0]!r}. " if elsewhere and not close else ""
            yield f"{where}: unknown key {key!r}; {hint}Known here: {', '.join(known)}"
        elif error["type"] == "missing":
            yield f"{where}: the key {key!r} is missing; Known here: {', '.join(known)}"
        elif error["type"] == "literal_error":
            choices = [choice.strip("' ") for choice in str(error["ctx"]["expected"]).replace(" or ", ",").split(",")]
            yield f"{where}: {key}: {unknown('value', str(error['input']), choices)}"
        else:
            message = error["msg"].removeprefix("Value error, ")
            given = "" if error["type"] == "value_error" else f", but is {error['input']!r}"
            yield f"{where}: {key + ': ' if key else ''}{message[0].lower() + message[1:]}{given}"


def _fields_at(model: type[BaseModel], place: Place) -> set[str]:
    """The keys that may stand at `place`."""
    for part in place:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return set()
        model = inner
    return set(model.model_fields)


def _places_of(model: type[BaseModel], key: str) -> list[str]:
    """The groups of `model` in which `key` is known, for a key that was written one level too high or too low."""
    groups = {name: field.annotation for name, field in model.model_fields.items()}
    return [name for name, kind in groups.items() if isinstance(kind, type) and issubclass(kind, BaseModel) and key in kind.model_fields]


__all__ = ["Base", "Evaluation", "Experiment", "MergeWork", "Settings", "Step", "Stream", "Tracking", "Train", "validated"]
