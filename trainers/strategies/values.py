"""Checks of the strategies' hyperparameters, with messages that say what to give instead."""

import math

from foundation.errors import ConfigError


def check_not_negative(strategy: str, name: str, value: float) -> None:
    """ConfigError unless `value` is finite and 0 or more."""
    _refuse_unless(math.isfinite(value) and value >= 0, strategy, name, value, "a number of 0 or more")


def check_positive(strategy: str, name: str, value: float) -> None:
    """ConfigError unless `value` is finite and above 0."""
    _refuse_unless(math.isfinite(value) and value > 0, strategy, name, value, "a number above 0")


def check_share(strategy: str, name: str, value: float) -> None:
    """ConfigError unless 0 <= `value` <= 1."""
    _refuse_unless(0 <= value <= 1, strategy, name, value, "a number from 0 to 1")


def _refuse_unless(honoured: bool, strategy: str, name: str, value: float, wanted: str) -> None:
    if not honoured:
        raise ConfigError(f"strategy {strategy}: {name} is {value}; give {wanted}")
