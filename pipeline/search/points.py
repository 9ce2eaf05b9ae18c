"""From a point to a merger: what the name of an axis stands for, and how its value enters the method.

    alpha                     a hyperparameter of the method
    alpha.0, alpha.1, ...     the numbers of a gradient: spread evenly over the depth of the model, linear between
    alpha[*.layers.0.*]       its value for the tensors that a glob matches; the first axis that matches counts. The others keep the plain
                              axis, else the fixed value, else the method's own
    weights.tuned             the entry of a source, where there is one per source; also weights.tuned[glob]
    method                    the method itself, by name; an axis or a fixed value that a method does not have is left out for it

Where one weight is searched, sources that no axis and no fixed value names get what is left to 1, in equal parts, if the method takes
weights that sum to 1; else they get the method's own, or 1.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from foundation.errors import ConfigError
from mergers.merger import Merger
from mergers.schedule import Level, Schedule
from mergers.table import merger_class
from pipeline.config.merge_values import Knob, Varies, build, knobs_of
from pipeline.search.spec import Axis, Point, SearchSpec, Value

METHOD = "method"
STAGE = ("previous", "tuned")
"""The sources of a stage's merge."""
NAME = re.compile(r"(?P<knob>\w+)(\.(?P<entry>[^\[\]]+))?(\[(?P<glob>.+)\])?")


@dataclass(frozen=True)
class Target:
    """What an axis sets: a hyperparameter; of it, a source's entry or a number of a gradient; of that, what a glob matches."""

    knob: str
    entry: str | None = None
    glob: str | None = None


def target_of(name: str) -> Target:
    """What the name of an axis stands for; ConfigError for a name of another form."""
    found = NAME.fullmatch(name)
    if found is None:
        raise ConfigError(f"search: {name!r} names no parameter; write e.g. alpha, weights.tuned or alpha[*.layers.0.*]")
    return Target(found["knob"], found["entry"], found["glob"])


def methods_of(spec: SearchSpec) -> tuple[str, ...]:
    """The methods that points are merged by."""
    axis = next((axis for axis in spec.axes if axis.name == METHOD), None)
    return tuple(str(value) for value in axis.values) if axis else (spec.method,)


def axes_of(spec: SearchSpec, method: str) -> tuple[Axis, ...]:
    """The axes that a method has, without that of the method."""
    known = parameters_of(method)
    return tuple(axis for axis in spec.axes if axis.name != METHOD and target_of(axis.name).knob in known)


@cache
def parameters_of(method: str) -> frozenset[str]:
    """The names of a method's hyperparameters."""
    return frozenset(knobs_of(method))


def described(point: Point) -> str:
    """A point in a message: `alpha=0.3, scale=1`."""
    return ", ".join(f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in point.items())


def merger_at(spec: SearchSpec, point: Point, sources: Sequence[str] = STAGE) -> Merger:
    """The merger of a point, for sources of these names. ConfigError, naming the point, for values that the method refuses."""
    method = str(point.get(METHOD, spec.method))
    given = [(target_of(axis.name), point[axis.name]) for axis in axes_of(spec, method)]
    try:
        return merger_of(method, dict(spec.fixed), given, sources)
    except ConfigError as error:
        raise ConfigError(f"search: at {described(point)}: {error}") from error


def merger_of(method: str, fixed: Mapping[str, Any], given: Sequence[tuple[Target, Value]], sources: Sequence[str]) -> Merger:
    """The method with what is `fixed` and `given`, as far as it has it. In `fixed` what names a hyperparameter alone holds its value as the
    class takes it; an entry or a glob of one (`weights.tuned`) counts as given. ConfigError for values that it refuses."""
    knobs = knobs_of(method)
    values: dict[str, Any] = {name: value for name, value in fixed.items() if name in knobs}
    parts = [(target_of(name), value) for name, value in fixed.items() if name not in knobs]
    for knob in knobs.values():
        mine = [(target, value) for target, value in (*given, *parts) if target.knob == knob.name]
        if mine:
            values[knob.name] = setting(method, knob, mine, values.get(knob.name), sources)
        elif knob.required and knob.name not in values:
            raise ConfigError(f"{method} needs a value for {knob.name}; search it, or give it as fixed")
    merger = build(method, values)
    merger.check(sources)
    return merger


def setting(method: str, knob: Knob, given: Sequence[tuple[Target, Value]], fixed: Any, sources: Sequence[str]) -> Any:
    """The value of one hyperparameter from the axes that set it."""
    if knob.varies is Varies.NOTHING:
        return plain_value(method, knob, given)
    own = default_of(method, knob.name) if fixed is None else fixed
    if knob.varies is Varies.TENSORS:
        return varying(knob.name, given, own)
    lacking = next((target for target, _ in given if target.entry is None and not knob.both), None)
    if lacking is not None:
        raise ConfigError(f"{knob.name} has a value per source; search {' or '.join(f'{knob.name}.{name}' for name in sources)}")
    stray = next((target.entry for target, _ in given if target.entry is not None and target.entry not in sources), None)
    if stray is not None:
        raise ConfigError(f"{knob.name}.{stray} is no source's; the sources are {', '.join(sources)}")
    return per_source(method, knob, given, own, sources)


def plain_value(method: str, knob: Knob, given: Sequence[tuple[Target, Value]]) -> Any:
    """A value that varies over nothing, held against its type."""
    (target, value), *others = given
    if others or target != Target(knob.name):
        raise ConfigError(f"{knob.name} of {method} is one value for the whole model; search {knob.name} itself")
    try:
        return TypeAdapter(knob.kind).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ConfigError(f"{knob.name} of {method} cannot be {value!r}: {reason}; search it by values in place of a range") from error


def per_source(
    method: str, knob: Knob, given: Sequence[tuple[Target, Value]], own: Any, sources: Sequence[str]
) -> tuple[float | Schedule, ...] | float | Schedule:
    """One value for each source, or one for all where only that is searched."""
    common = [(target, value) for target, value in given if target.entry is None]
    if common:
        own = varying(knob.name, common, own if isinstance(own, int | float | Schedule) else None)
    if len(common) == len(given):
        return cast(float | Schedule, own)
    found: dict[str, float | Schedule] = {}
    for position, name in enumerate(sources):
        mine = [(Target(knob.name, glob=target.glob), value) for target, value in given if target.entry == name]
        entry = own[position] if isinstance(own, tuple) and position < len(own) else None if isinstance(own, tuple) else own
        if mine:
            found[name] = varying(f"{knob.name}.{name}", mine, remainder(method, knob.name, {}, sources) if entry is None else entry)
        elif entry is not None:
            found[name] = entry
    rest = remainder(method, knob.name, found, sources)
    return tuple(found.get(name, rest) for name in sources)


def remainder(method: str, knob: str, found: Mapping[str, float | Schedule], sources: Sequence[str]) -> float:
    """What a source gets that nothing names: a share of what is left to 1 where weights must sum to 1, else 1."""
    left = len(sources) - len(found)
    numbers = [value for value in found.values() if not isinstance(value, Schedule)]
    if not left or len(numbers) < len(found):
        return 1.0
    try:
        cast(Any, merger_class(method))(**{knob: (1.0,) * len(sources)}).check(sources)
    except ConfigError:
        return round((1 - sum(numbers)) / left, 12)
    return 1.0


def varying(name: str, given: Sequence[tuple[Target, Value]], own: Any) -> float | Schedule:
    """A number, or a schedule from a gradient or from globs; what they do not cover is `own`."""
    for target, value in given:
        if isinstance(value, bool | str):
            raise ConfigError(f"{name} cannot be {value!r}; give numbers")
        if target.entry is not None and not (target.entry.isdecimal() and target.glob is None):
            raise ConfigError(f"{name}.{target.entry} is no number of a gradient; name them {name}.0, {name}.1, and so on")
    plain = [float(value) for target, value in given if target.entry is None and target.glob is None]
    places = {int(target.entry): float(value) for target, value in given if target.entry is not None}
    globs = tuple((target.glob, float(value)) for target, value in given if target.glob is not None)
    if places and (plain or len(places) < 2 or sorted(places) != list(range(len(places)))):
        raise ConfigError(
            f"the gradient of {name} has {', '.join(f'{name}.{place}' for place in sorted(places))}"
            + (f" beside {name} itself; keep one of the two" if plain else f"; number at least two from {name}.0 on, leaving none out")
        )
    rest: Any = tuple(places[place] for place in sorted(places)) if places else plain[0] if plain else own
    if not globs:
        return Schedule((("*", rest),)) if isinstance(rest, tuple) else cast(float | Schedule, rest)
    return Schedule((*globs, *rules_of(rest, [glob for glob, _ in globs])))


def rules_of(rest: Any, taken: Sequence[str]) -> tuple[tuple[str, Level], ...]:
    """What follows the searched globs: the rules of a schedule, or one for all other tensors."""
    rules = rest.rules if isinstance(rest, Schedule) else () if rest is None else (("*", rest),)
    return tuple(rule for rule in rules if rule[0] not in taken)


def default_of(method: str, name: str) -> Any:
    """A hyperparameter's own value in its class; None where it has none."""
    found = next(item.default for item in fields(cast(Any, merger_class(method))) if item.name == name)
    return None if found is MISSING else found
