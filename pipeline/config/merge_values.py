"""The values of a merge's hyperparameters as users write them: what a method's fields allow, and numbers that differ per tensor."""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from functools import partial
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from pydantic import Field

from foundation.errors import ConfigError
from mergers.merger import Merger
from mergers.schedule import Level, Parameter, Schedule, Scheduled
from mergers.table import merger_class
from pipeline.config.complaints import is_what
from pipeline.config.kinds import Flag
from pipeline.config.yaml_file import Place, YamlFile

VALUE = "give a number, a list of numbers over the depth of the model, or globs with values such as {'*.mlp.*': 0.3, '*': 0.5}"
Made = TypeVar("Made")


class Varies(Enum):
    """What a hyperparameter of a method may differ over."""

    NOTHING = "nothing"
    TENSORS = "tensors"
    SOURCES = "sources and tensors"


@dataclass(frozen=True)
class Knob:
    """A hyperparameter as users write it. `kind` is pydantic's type where it varies over nothing; `both`: one value will do for all."""

    name: str
    varies: Varies
    kind: Any
    required: bool
    both: bool = False

    @property
    def singular(self) -> str:
        """What it is called at a source."""
        return self.name.removesuffix("s") if self.varies is Varies.SOURCES and not self.both else self.name


def knobs_of(method: str) -> dict[str, Knob]:
    """The hyperparameters of a method in the table, read off its class."""
    kind = cast(Any, merger_class(method))
    hints = get_type_hints(kind)
    return {item.name: knob(item.name, hints[item.name], item.default is MISSING) for item in fields(kind)}


def knob(name: str, hint: Any, required: bool) -> Knob:
    """One hyperparameter, from the type of its field."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    number, each = float in choices, any(get_origin(choice) is tuple for choice in choices)
    if each:
        return Knob(name, Varies.SOURCES, Any, required, both=number)
    if number:
        return Knob(name, Varies.TENSORS, Any, required)
    strict = {bool: Flag, int: Annotated[int, Field(strict=True)]}
    plain = [strict.get(choice, choice) for choice in choices if choice is not NoneType]
    return Knob(name, Varies.NOTHING, plain[0] if len(plain) == 1 else Any, required)


def build(method: str, values: Mapping[str, Any], normalized: tuple[str, ...] = ()) -> Merger:
    """The method with these hyperparameters; scheduled if one of them differs per tensor. What is None is left to the method."""
    given = {name: value for name, value in values.items() if value is not None}
    plain = {name: plainly(value) for name, value in given.items()}
    scheduled: list[tuple[str, Parameter]] = [(name, value) for name, value in given.items() if value != plain[name]]
    merger = merger_class(method)(**plain)
    return Scheduled(merger, tuple(scheduled), normalized) if scheduled else merger


def level_of(file: YamlFile, place: Place, value: Any) -> float | Schedule:
    """A number, or a schedule from a gradient or from globs."""
    if isinstance(value, Mapping):
        rules = [(glob, level(file, (*place, glob), each)) for glob, each in value.items()]
        return located(file, place, partial(Schedule, tuple(rules)))
    found = level(file, place, value)
    return Schedule((("*", found),)) if isinstance(found, tuple) else found


def level(file: YamlFile, place: Place, value: Any) -> Level:
    """A number, or a list of them."""
    entries = value if isinstance(value, list) and len(value) > 1 else [value]
    for index, entry in enumerate(entries):
        if isinstance(entry, bool) or not isinstance(entry, int | float):
            at = (*place, index) if entries is value else place
            quoted = isinstance(entry, str) and re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", entry)
            raise ConfigError(
                f"{file.at(at)}: {place[-1]} {is_what(entry)}; " + (f"give a number, without quotes: {entry}" if quoted else VALUE)
            )
    return tuple(float(entry) for entry in entries) if len(entries) > 1 else float(entries[0])


def located(file: YamlFile, place: Place, make: Callable[[], Made]) -> Made:
    """What `make` gives; its ConfigError with the line."""
    try:
        return make()
    except ConfigError as error:
        raise ConfigError(f"{file.at(place)}: {error}") from error


def plainly(value: Any) -> Any:
    """A value as it is somewhere in the model: what stands for a schedule in the plain method."""
    if isinstance(value, Schedule):
        first = value.rules[0][1]
        return first[0] if isinstance(first, tuple) else first
    return tuple(plainly(each) for each in value) if isinstance(value, tuple) else value
