"""From pydantic's errors to sentences a newcomer can act on: where (file and line), what (with the value), what to do.

An unknown key is told apart by what it could have been: a mistyped key, a key of another group, a key of another recipe.
"""

import re
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from foundation.hints import nearest, unknown
from pipeline.config.yaml_file import Place, YamlFile
from pipeline.tracking.backend import without_password

EXAMPLES = {
    "name": "name: my_experiment",
    "base": "base: {pretrain: digits_llava}",
    "tasks": "tasks: [parity, count]",
    "seeds": "seeds: [0, 1, 2]",
    "common": "common: {base: {pretrain: digits_llava}, tasks: [parity, count]}",
    "arms": "arms: {plain: {recipe: sequential}, averaged: {recipe: wise_ft}}",
}
WANTED = {
    "int_type": "give a whole number",
    "int_parsing_size": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "finite_number": "give a finite number",
    "bool_type": "give true or false",
    "string_type": "give text",
    "list_type": "give a list, in [brackets]",
    "dict_type": "give keys and values, indented below it",
    "model_type": "give keys and values, indented below it",
    "path_type": "give a directory",
}
"""pydantic's type of error -> what to write instead."""


def sentences(
    model: type[BaseModel], file: YamlFile, errors: list[ErrorDetails], relatives: Mapping[str, type[BaseModel]]
) -> Iterator[str]:
    """One sentence per error, in the order of their lines. `relatives`: other recipes by name, which may know a key that `model` lacks."""
    found = [(_place(file, error), error) for error in errors]
    for place, error in sorted(found, key=lambda pair: file.line(pair[0])):
        yield f"{file.at(place)}: {_sentence(model, error, relatives)}"


def _place(file: YamlFile, error: ErrorDetails) -> Place:
    """Where the error is; for one of a whole group, the first of its keys that the message names and the file gives."""
    place: Place = error["loc"]
    if error["type"] == "value_error":
        for word in re.findall(r"[a-z_]+", error["msg"]):
            if (*place, word) in file.lines:
                return (*place, word)
    return place


def _sentence(model: type[BaseModel], error: ErrorDetails, relatives: Mapping[str, type[BaseModel]]) -> str:
    place: Place = error["loc"]
    key, given, kind = _spelled(place), error["input"], error["type"]
    if kind == "extra_forbidden":
        return _unknown_key(model, place, relatives)
    if kind == "missing":
        return f"the key {key!r} is missing; add it" + (f", e.g. {EXAMPLES[key]}" if key in EXAMPLES else "")
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(error["ctx"]["expected"]))
        if isinstance(given, str):
            return f"{key}: {unknown('value', given, choices)}"
        return f"{key} {is_what(given)}; give one of {', '.join(sorted(choices))}"
    if kind == "value_error":
        message = error["msg"].removeprefix("Value error, ").removeprefix("training: ")
        return message if not key or message.startswith((key, str(place[-1]))) else f"{key}: {message}"
    return f"{key} {is_what(given)}; {_wanted(kind, error)}"


def _wanted(kind: str, error: ErrorDetails) -> str:
    given, limits = error["input"], error.get("ctx", {})
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
        name = next(name for name in words if name in limits)
        return f"give {words[name]} {limits[name]:g}" if limits[name] < 1e6 else f"give {words[name]} {limits[name]:,.0f}"
    if kind == "too_short":
        return f"name at least {limits['min_length']}"
    if kind == "string_too_short":
        return "give a name or a path"
    wanted = WANTED.get(kind, error["msg"][0].lower() + error["msg"][1:])
    if isinstance(given, str) and kind in ("int_type", "float_type") and re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", given):
        return f"{wanted}, without quotes: {given}"
    return f"{wanted}, e.g. {given:.0f}" if kind == "int_type" and isinstance(given, float) and given.is_integer() else wanted


def is_what(given: Any) -> str:
    """What the user gave, in words."""
    if given is None:
        return "has no value"
    if isinstance(given, bool):
        return f"is {str(given).lower()}"
    if isinstance(given, str):
        return f"is the text {without_password(given)[:60]!r}"
    return f"is {without_password(str(given))[:60]}"


def _unknown_key(model: type[BaseModel], place: Place, relatives: Mapping[str, type[BaseModel]]) -> str:
    name, group = str(place[-1]), place[:-1]
    known = sorted(_fields_at(model, group))
    places = _places_of(model)
    own = ".".join(map(str, group))
    elsewhere = [where for where, key in places if key == name and where != own]
    hint = ""
    if elsewhere:
        hint = f"it belongs {' or '.join(f'under {where!r}' if where else 'at the top level, not indented' for where in elsewhere)}. "
    elif close := nearest(name, known):
        hint = f"did you mean {close!r}? "
    elif others := [recipe for recipe, other in relatives.items() if not group and name in other.model_fields]:
        hint = f"it is a key of recipe {' and '.join(others)}, not of this one. "
    elif close := nearest(name, {key for _, key in places}):
        where = next(where for where, key in places if key == close)
        hint = f"did you mean {close!r} {f'under {where!r}' if where else 'at the top level'}? "
    return f"unknown key {_spelled(place)!r}; {hint}Known here: {', '.join(known)}"


def _fields_at(model: type[BaseModel], place: Place) -> set[str]:
    """The keys that may stand at `place`."""
    kind: Any = model
    for part in place:
        if _group(kind) is not None:
            field = _group(kind).model_fields.get(str(part))
            kind = field.annotation if field else None
        else:
            kind = _named_group(kind)
    found = _group(kind)
    return set(found.model_fields) if found else set()


def _places_of(model: type[BaseModel], group: str = "") -> list[tuple[str, str]]:
    """(group, key) of every key of `model` and of the groups within it; `<name>` stands for names that the user gives."""
    found = [(group, name) for name in model.model_fields]
    for name, field in model.model_fields.items():
        below = f"{group}.{name}" if group else name
        if (inner := _group(field.annotation)) is not None:
            found += _places_of(inner, below)
        elif (inner := _named_group(field.annotation)) is not None:
            found += _places_of(inner, f"{below}.<name>")
    return found


def _group(kind: Any) -> Any:
    """The model that a key's type is, if it is one; also where it may be left out."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return next((each for each in kinds if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _named_group(kind: Any) -> Any:
    """The model of each value, where a key's type is a mapping of names to a model."""
    return _group(get_args(kind)[1]) if get_origin(kind) is dict else None


def _spelled(place: Place) -> str:
    """`tasks[0]`, `train.max_steps`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
