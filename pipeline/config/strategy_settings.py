"""The keys of a strategy: its name in the table, and its own hyperparameters, read off its class.

strategy: lwf
strategy: {name: lwf, weight: 1.0, temperature: 2.0}
"""

from dataclasses import fields
from enum import StrEnum
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, model_validator

from foundation.errors import ConfigError
from foundation.hints import unknown
from pipeline.config.complaints import is_what
from pipeline.config.kinds import Settings
from trainers.strategies.table import STRATEGIES
from trainers.strategy import Strategy

FORMS = "give a name (strategy: lwf) or a name and its settings (strategy: {name: lwf, weight: 1.0})"


class StrategySettings(Settings):
    """How each stage takes up its task. Left out: plain fine-tuning."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "fine_tuning"

    @model_validator(mode="before")
    @classmethod
    def _plain_name(cls, value: Any) -> Any:
        if not isinstance(value, str | dict):
            raise ValueError(f"strategy {is_what(value)}; {FORMS}")
        named = {"name": value} if isinstance(value, str) else value
        if "name" not in named:
            raise ValueError(f"strategy names none; {FORMS}")
        return named

    @model_validator(mode="after")
    def _made(self) -> "StrategySettings":
        try:
            self.make()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def make(self) -> Strategy:
        """The strategy; ConfigError for a name that is not in the table, a setting it does not have, or a value it cannot have."""
        if self.name not in STRATEGIES:
            raise ConfigError(unknown("strategy", self.name, STRATEGIES))
        kind: Any = STRATEGIES[self.name]
        hints, given = get_type_hints(kind), self.model_extra or {}
        known = [item.name for item in fields(kind)]
        for key in given:
            if key not in known:
                raise ConfigError(f"{key}: {unknown(f'setting of {self.name}', key, known) if known else f'{self.name} has no settings'}")
        made: Strategy = kind(**{key: _as(hints[key], key, value) for key, value in given.items()})
        return made


def _as(hint: Any, key: str, value: Any) -> Any:
    """`value` as the kind that the field is (a whole number as a number, so that 1000 is 1000.0); ConfigError where it is of another."""
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return value  # the strategy itself says what it knows
    try:
        return TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError as error:
        wanted = error.errors()[0]["msg"]
        raise ConfigError(f"{key} {is_what(value)}; {wanted[0].lower()}{wanted[1:]}") from error
