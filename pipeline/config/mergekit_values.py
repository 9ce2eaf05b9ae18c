"""The parameters of a mergekit file: where each is looked for, gradients and filters as schedules, and what is refused by name."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from foundation.hints import unknown
from mergers.schedule import Level, Schedule
from pipeline.config.complaints import is_what
from pipeline.config.merge_values import knobs_of, level
from pipeline.config.mergekit_methods import MERGEKIT, Number, Shared, Switch
from pipeline.config.mergekit_models import Entry, mapping_at
from pipeline.config.yaml_file import Place, YamlFile


def values_of(file: YamlFile, name: str, method: Shared, sources: Sequence[Entry]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Our method's fields with their values, and those that are to be scaled to sum to 1 tensor by tensor."""
    values: dict[str, Any] = dict(method.fixed)
    outer = sources[0].outer
    for parameter, option in method.whole.items():
        if isinstance(option, Number):
            values[option.ours] = number_at(file, outer, parameter, option, name)
            continue
        chosen = switch_at(file, outer, parameter, option, name, scaled=parameter == method.scaled)
        if option.ours is not None:
            values[option.ours] = chosen
    for parameter, option in method.each.items():
        each = tuple(number_at(file, source.scopes, parameter, option, name) for source in sources)
        values[option.ours] = each[0] if knobs_of(method.ours)[option.ours].both and len(set(each)) == 1 else each
    if method.scaled is None or not switch_at(file, outer, method.scaled, method.whole[method.scaled], name, scaled=True):
        return values, ()
    if any(isinstance(weight, Schedule) for weight in values["weights"]):
        return values, ("weights",)
    total = sum(values["weights"])
    if not total > 0:
        raise file.error(("parameters",), f"the weights sum to {total:g} and cannot be scaled to sum to 1; give weights above 0")
    return values | {"weights": tuple(weight / total for weight in values["weights"])}, ()


def number_at(file: YamlFile, scopes: Sequence[Place], parameter: str, option: Number, method: str) -> float | Schedule:
    """A number from the nearest scopes: plain, or a schedule."""
    rules: dict[str, Level] = {}
    for scope in scopes:
        for glob, value in rules_at(file, (*scope, parameter)):
            rules.setdefault(glob, scale(value, option.factor))
            if glob == "*":
                break
        if "*" in rules:
            break
    if "*" not in rules and option.default is not None:
        rules["*"] = option.default * option.factor
    if not rules:
        raise file.error(scopes[0][:-1] or ("merge_method",), f"{method} needs {parameter} here; add e.g. parameters: {{{parameter}: 0.5}}")
    first = next(iter(rules.items()))
    return first[1] if first[0] == "*" and not isinstance(first[1], tuple) else Schedule(tuple(rules.items()))


def rules_at(file: YamlFile, place: Place) -> Iterator[tuple[str, Level]]:
    """What one place says of a number, as globs and values, in order."""
    value = file.value(place)
    if not file.holds(place):
        return
    if isinstance(value, Mapping):
        yield rule(file, place)
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for index in range(len(value)):
            found = rule(file, (*place, index))
            if found[0] == "*" and index + 1 < len(value):
                raise file.error((*place, index + 1), f"{place[-1]}: nothing after a value without filter counts; put that value last")
            yield found
    else:
        yield "*", level(file, place, value)


def rule(file: YamlFile, place: Place) -> tuple[str, Level]:
    """A `filter`, any part of a tensor's name, and its `value`; without a filter (or with "*") the value of all tensors."""
    found = mapping_at(file, place, ("filter", "value"))
    wanted = found.get("filter")
    if "value" not in found:
        raise file.error(place, "no value stands beside this filter; add value: and a number")
    if wanted is not None and not isinstance(wanted, str):
        raise file.error((*place, "filter"), f"filter {is_what(wanted)}; give a part of tensor names, e.g. mlp")
    return glob_of(wanted), level(file, (*place, "value"), found["value"])


def glob_of(wanted: str | None) -> str:
    """The glob of a filter."""
    return "*" if wanted in (None, "", "*") else "*" + re.sub(r"([*?[])", r"[\1]", str(wanted)) + "*"


def scale(value: Level, factor: float) -> Level:
    """A number or gradient, so many times as large."""
    return tuple(each * factor for each in value) if isinstance(value, tuple) else value * factor


def switch_at(file: YamlFile, scopes: Sequence[Place], parameter: str, option: Any, method: str, scaled: bool) -> bool:
    """true or false, from the nearest scope."""
    place = next(((*scope, parameter) for scope in scopes if file.holds((*scope, parameter))), None)
    if place is None:
        return bool(option.default)
    value = file.value(place)
    if value not in (0, 1):
        raise file.error(place, f"{parameter} {is_what(value)}; give true or false")
    if isinstance(option, Switch) and option.ours is None and bool(value) != option.default and not scaled:
        raise file.error(place, f"{method} with {parameter}: {str(bool(value)).lower()} is not among the methods here; remove this line")
    return bool(value)


def check_parameters(file: YamlFile, name: str, method: Shared, entries: Sequence[Entry]) -> None:
    """ConfigError for a parameter that the method does not have, or that stands where it would not count."""
    known = {*method.each, *method.whole, *method.idle}
    for scope in dict.fromkeys(scope for entry in entries for scope in entry.scopes):
        found = file.value(scope)
        if found is None:
            continue
        if not isinstance(found, Mapping):
            raise file.error(scope, f"parameters {is_what(found)}; give keys and values")
        for parameter in found:
            place = (*scope, parameter)
            if parameter not in known:
                others = [other for other, shared in MERGEKIT.items() if parameter in {*shared.each, *shared.whole, *shared.idle}]
                has_no_part = f"{parameter} has no part in {name}, only in {', '.join(others)}; remove it"
                raise file.error(place, has_no_part if others else unknown(f"parameter of {name}", str(parameter), known))
            if parameter in method.whole and any(scope == entry.own for entry in entries):
                raise file.error(
                    place, f"{parameter} belongs to the whole merge, at a model it would not count; move it to the last parameters"
                )
