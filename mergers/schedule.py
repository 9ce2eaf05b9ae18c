"""Hyperparameters that differ from tensor to tensor: by name, by depth, or both.

A schedule is a list of rules, glob -> value, of which the first that matches a tensor's name counts. A value is a number, or a gradient:
two or more numbers spread evenly over the depth of the model and interpolated linearly between. `Scheduled` is a method whose
hyperparameters may be schedules; for one tensor it is a plain method with plain numbers (`at`), so the formulas know nothing of all this.

Depth is told by `depth.py`. A tensor outside numbered layers (embedding, final norm, output head) takes a gradient's first value, as in
mergekit; a rule with the tensor's name says otherwise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from foundation.errors import ConfigError
from mergers.depth import depths
from mergers.merger import Granularity, Inputs, Merger, Need, Statistic
from mergers.rules import check_rules, example, first_match

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array

Level = float | tuple[float, ...]
"""A number, or a gradient."""
SPLITTING = ("density",)
"""What a method that counts over the whole model may have differently per tensor: it then counts over the tensors that share a value."""
MAX_TOLD = 3


@dataclass(frozen=True)
class Schedule:
    """Ordered rules (glob, number or gradient); `*` also matches dots, upper and lower case differ. The first rule that matches counts."""

    rules: tuple[tuple[str, Level], ...]

    def __post_init__(self) -> None:
        globs = self.globs
        twice = next((pattern for pattern in globs if globs.count(pattern) > 1), None)
        if not globs or "" in globs:
            raise ConfigError("a schedule needs rules such as {'*.mlp.*': 0.3, '*': 0.5}; give at least one, each with a glob")
        if twice is not None:
            raise ConfigError(f"the glob {twice!r} has two values; keep the first, which would count")
        for pattern, level in self.rules:
            if isinstance(level, tuple) and len(level) < 2:
                raise ConfigError(f"the gradient of {pattern!r} has {len(level)} values; give at least 2, e.g. [0, 1], or a plain number")

    @property
    def globs(self) -> list[str]:
        """The rules' globs, in order."""
        return [pattern for pattern, _ in self.rules]

    def rule_of(self, tensor: str) -> int | None:
        """The position of the rule that counts for a tensor; None if none covers it."""
        return first_match(self.globs, tensor)

    def at(self, tensor: str, depth: float) -> float:
        """The value for a tensor; ConfigError if no rule covers it."""
        index = self.rule_of(tensor)
        if index is None:
            raise ConfigError(f"no rule covers tensor '{tensor}' ({self}); add one, e.g. '*': 0.5 as the last")
        return level_at(self.rules[index][1], depth)

    @property
    def knots(self) -> set[float]:
        """The depths at which its values bend: 0, 1, and those of its gradients' own numbers."""
        return {0.0, 1.0} | {i / (len(level) - 1) for _, level in self.rules if isinstance(level, tuple) for i in range(len(level))}

    def __str__(self) -> str:
        told = [f"{pattern}: {list(level) if isinstance(level, tuple) else level}" for pattern, level in self.rules]
        return "{" + ", ".join(told) + "}"


Parameter = Schedule | tuple[Schedule | float, ...]
"""A hyperparameter that differs per tensor: one value for all sources, or one per source."""


def level_at(level: Level, depth: float) -> float:
    """The value of a number or gradient at `depth` from 0 to 1; beyond them, the value there."""
    if not isinstance(level, tuple):
        return float(level)
    position = min(max(depth, 0.0), 1.0) * (len(level) - 1)
    index = min(int(position), len(level) - 2)
    share = position - index
    return float(level[index]) if share == 0 else level[index] * (1 - share) + level[index + 1] * share


@dataclass(frozen=True)
class Scheduled:
    """A method of which some hyperparameters differ per tensor.

    `method` holds the others. `parameters` are (field of the method, its schedule), where a field that has one value per source may have
    a schedule for each. `normalized` names fields whose values are scaled to sum to 1 over the sources, tensor by tensor.
    """

    method: Merger
    parameters: tuple[tuple[str, Parameter], ...]
    normalized: tuple[str, ...] = ()

    @property
    def granularity(self) -> Granularity:
        """The method's."""
        return self.method.granularity

    @property
    def base(self) -> Need:
        """The method's."""
        return self.method.base

    @property
    def statistic(self) -> Statistic | None:
        """The method's."""
        return self.method.statistic

    @property
    def pooled(self) -> bool:
        """The method's."""
        return self.method.pooled

    @property
    def copies_equal(self) -> bool:
        """The method's."""
        return self.method.copies_equal

    @property
    def on_device(self) -> bool:
        """The method's."""
        return self.method.on_device

    @property
    def rounds(self) -> int:
        """The most that any tensor needs."""
        return max((merger.rounds for _, merger in self.samples()), default=self.method.rounds)

    def __str__(self) -> str:
        given = {item.name: getattr(self.method, item.name) for item in dataclasses.fields(cast(Any, self.method))} | dict(self.parameters)
        return f"{type(self.method).__name__}({', '.join(f'{name}={spelled(value)}' for name, value in given.items())})"

    def at(self, tensor: str, depth: float) -> Merger:
        """The plain method for one tensor. ConfigError if a schedule does not cover it, or its values cannot be normalized."""
        return self.made(self.values(tensor, depth))

    def values(self, tensor: str, depth: float) -> tuple[float | tuple[float, ...], ...]:
        """What each of `parameters` is for one tensor."""
        return tuple(self.value(name, parameter, tensor, depth) for name, parameter in self.parameters)

    def value(self, name: str, parameter: Parameter, tensor: str, depth: float) -> float | tuple[float, ...]:
        """What one parameter is for one tensor."""
        if isinstance(parameter, Schedule):
            return parameter.at(tensor, depth)
        each = tuple(entry.at(tensor, depth) if isinstance(entry, Schedule) else entry for entry in parameter)
        if name not in self.normalized:
            return each
        total = math.fsum(each)
        if not math.isfinite(total) or total <= 0:
            raise ConfigError(f"{name} of tensor '{tensor}' are {', '.join(f'{one:g}' for one in each)}; they must sum to more than 0")
        return tuple(one / total for one in each)

    def made(self, values: Sequence[float | tuple[float, ...]]) -> Merger:
        """The method with plain values in place of its schedules."""
        names = (name for name, _ in self.parameters)
        return cast(Merger, dataclasses.replace(cast(Any, self.method), **dict(zip(names, values, strict=True))))

    def schedules(self) -> list[Schedule]:
        """Every schedule in it."""
        entries = [each for _, value in self.parameters for each in ((value,) if isinstance(value, Schedule) else value)]
        return [each for each in entries if isinstance(each, Schedule)]

    def samples(self) -> Iterator[tuple[str, Merger]]:
        """(glob, the method there) for a name that each glob matches, at every depth at which a value bends."""
        schedules = self.schedules()
        knots = sorted(set().union(*(schedule.knots for schedule in schedules)))
        for pattern in dict.fromkeys(pattern for schedule in schedules for pattern in schedule.globs):
            tensor = example(pattern)
            if all(schedule.rule_of(tensor) is not None for schedule in schedules):
                yield from ((pattern, self.at(tensor, depth)) for depth in knots)

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError for a value that the method refuses, wherever a rule gives it."""
        for name, _ in self.parameters:
            if self.pooled and name not in SPLITTING:
                raise ConfigError(
                    f"{type(self.method).__name__} counts over the whole model at once, so {name} cannot differ per tensor, only "
                    f"{' and '.join(SPLITTING)} can; choose a method that works tensor by tensor (ties_per_tensor), or give one {name}"
                )
        for pattern, merger in self.samples():
            check_part(merger, source_names, f"where {pattern!r} matches")

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """What each source counts for, wherever that differs."""
        told = [merger.roles(source_names) for _, merger in self.samples()] or [self.method.roles(source_names)]
        return tuple(alternatives(each) for each in zip(*told, strict=True))

    def files_from(self, source_names: Sequence[str]) -> str | None:
        """The method's."""
        return self.method.files_from(source_names)

    def check_statistics(
        self, name: str, shape: tuple[int, ...], found: Sequence[tuple[int, ...] | None], sources: Sequence[str] = ()
    ) -> None:
        """The method's."""
        self.method.check_statistics(name, shape, found, sources)

    def check_holders(self, name: str, positions: Sequence[int]) -> None:
        """Only the plain method of a tensor can say."""
        raise unresolved()

    def watches(self, round_number: int, block_number: int) -> bool:
        """Only the plain method of a tensor can say."""
        raise unresolved()

    def likely(self, round_number: int) -> bool:
        """Only the plain method of a tensor can say."""
        raise unresolved()

    def needs(self, round_number: int, known: Array | None) -> bool:
        """Only the plain method of a tensor can say."""
        raise unresolved()

    def observe(self, round_number: int, inputs: Inputs) -> Array:
        """Only the plain method of a tensor can count."""
        raise unresolved()

    def summarize(self, round_number: int, total: Array, known: Array | None) -> Array:
        """Only the plain method of a tensor can count."""
        raise unresolved()

    def merge(self, inputs: Inputs) -> Tensor:
        """Only the plain method of a tensor can merge."""
        raise unresolved()


def resolve_mergers(merger: Merger, names: Iterable[str], sources: Sequence[str] | None = None) -> dict[str, Merger]:
    """The plain method for each tensor of the output: one object for all that share their hyperparameters.

    ConfigError for a rule that no tensor follows, a tensor that no rule covers and, where `sources` names them, values that the method
    refuses.
    """
    tensors = list(names)
    if not isinstance(merger, Scheduled):
        return dict.fromkeys(tensors, merger)
    for schedule in merger.schedules():
        check_rules(schedule.globs, tensors)
    deep = depths(tensors)
    made: dict[tuple[float | tuple[float, ...], ...], Merger] = {}
    resolved: dict[str, Merger] = {}
    for tensor in tensors:
        values = merger.values(tensor, deep[tensor])
        if values not in made:
            made[values] = merger.made(values)
            if sources is not None:
                check_part(made[values], sources, f"for tensor '{tensor}'")
        resolved[tensor] = made[values]
    return resolved


def check_part(merger: Merger, source_names: Sequence[str], where: str) -> None:
    """The method's own check, its error with the place."""
    try:
        merger.check(source_names)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def alternatives(told: Sequence[str]) -> str:
    """Several descriptions of one thing as one."""
    each = list(dict.fromkeys(told))
    if len(each) == 1:
        return each[0]
    return " or ".join([*each[:MAX_TOLD], *(["..."] if len(each) > MAX_TOLD else [])]) + ", by tensor"


def spelled(value: Any) -> str:
    """A hyperparameter in a message, schedules in their short form."""
    return f"({', '.join(str(each) for each in value)})" if isinstance(value, tuple) else str(value)


def unresolved() -> RuntimeError:
    """The error for using a scheduled method as if it were a plain one."""
    return RuntimeError("a scheduled method differs per tensor: take the plain method of each tensor from resolve_mergers")
