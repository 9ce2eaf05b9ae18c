"""The keys of the model an experiment starts from: a checkpoint, or the small digits model made here from a seed."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.complaints import is_what
from pipeline.config.kinds import Count, Settings
from trainers.pretraining.spec import DigitsPretraining, Phase


class PretrainSettings(Settings):
    """How the digits model is made from its seed, where it is to differ from the recipe in `trainers/pretraining/spec.py`."""

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
