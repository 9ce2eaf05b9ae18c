"""What a search tries and by what it chooses: frozen values, checked before anything runs. Light to import: no Ray, no torch.

    SearchSpec("wise_ft", (Axis("alpha", low=0.0, high=1.0),))                 11 points of a grid, or draws
    SearchSpec("ties", (Axis("density", low=0.1, high=0.9), Axis("scale", values=(0.5, 1.0))), fixed=(("normalize", True),))

A point is one value per axis. Which method a point is merged by may itself be an axis, named `method`, with the names as values; an axis
that a method does not have is then left out for it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from evaluators.scores import TaskScore
from foundation.errors import ConfigError
from foundation.hints import unknown

Value = float | str
Point = Mapping[str, Value]


class Algorithm(StrEnum):
    """How points are chosen: all of a grid, at random, or by what was found so far (Optuna's TPE)."""

    GRID = "grid"
    RANDOM = "random"
    OPTUNA = "optuna"


class Goal(StrEnum):
    """What a trial is judged by, of its scores on the validation split: means over the tasks named, or a weighted sum of the two."""

    AVERAGE = "average"  # all tasks of the suite
    STREAM = "stream"  # those learned so far
    HELD_OUT = "held_out"
    NEW = "new"  # the task just learned
    BALANCED = "balanced"  # weight * new + (1 - weight) * the mean of all others


@dataclass(frozen=True)
class Axis:
    """One parameter: numbers from `low` to `high` (both ends tried by a grid), or the `values` to choose among. ConfigError for neither."""

    name: str
    low: float | None = None
    high: float | None = None
    values: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        if self.values:
            if self.low is not None or self.high is not None:
                raise ConfigError(f"search: {self.name} has both values and a range; keep one of the two")
            if len(set(self.values)) < len(self.values):
                raise ConfigError(f"search: {self.name} names a value twice; name each once")
            return
        if self.low is None or self.high is None:
            raise ConfigError(f"search: {self.name} has neither values nor a range; give low and high, or values")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"search: {self.name} goes from {self.low} to {self.high}; low must lie below high, both finite")

    def grid(self, points: int) -> tuple[Value, ...]:
        """`points` values at equal distances, both ends among them; or the values it has."""
        if self.values:
            return self.values
        assert self.low is not None
        assert self.high is not None
        step = (self.high - self.low) / (points - 1) if points > 1 else 0.0
        return tuple(round(self.low + index * step, 12) for index in range(points))


@dataclass(frozen=True)
class SearchSpec:
    """`points` is the number of values that a grid takes of each range; `trials` the number of points otherwise (a grid tries all).

    `samples` of each task's validation split are asked. With `halving` a trial that falls behind on a part of them is stopped (ASHA): it is
    asked a quarter, a half, then all. `weight` belongs to the goal `balanced`. ConfigError for what no search could honour.
    """

    method: str
    axes: tuple[Axis, ...]
    fixed: tuple[tuple[str, Any], ...] = ()
    algorithm: Algorithm = Algorithm.GRID
    points: int = 11
    trials: int = 11
    goal: Goal = Goal.AVERAGE
    weight: float = 0.5
    samples: int = 300
    halving: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("algorithm", Algorithm), ("goal", Goal)):
            value = getattr(self, name)
            if value not in list(kind):
                raise ConfigError(f"search: {unknown(name, str(value), [each.value for each in kind])}")
            object.__setattr__(self, name, kind(value))
        if not self.axes:
            raise ConfigError("search: nothing is searched; name at least one parameter with its range, e.g. alpha: {low: 0, high: 1}")
        twice = next((axis.name for axis in self.axes if [each.name for each in self.axes].count(axis.name) > 1), None)
        if twice is not None:
            raise ConfigError(f"search: {twice} is searched twice; name each parameter once")
        for name in ("points", "trials", "samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search: {name} is {getattr(self, name)}; give 1 or more")
        if not 0 <= self.weight <= 1:
            raise ConfigError(f"search: weight is {self.weight}; it is the new task's share and must lie between 0 and 1")


@dataclass(frozen=True)
class Trial:
    """One point that was tried. `value` is what the goal makes of `scores` (more is better), over `samples` of each task.

    `stderr` is the standard error of the value over the samples. `stopped` says that it was given up before all samples were asked.
    """

    number: int
    point: Point
    value: float
    scores: Mapping[str, TaskScore] = field(default_factory=dict)
    samples: int = 0
    seconds: float = 0.0
    stopped: bool = False
    stderr: float = 0.0
