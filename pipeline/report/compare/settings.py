"""In which settings experiments differ: the keys of their resolved files, defaults filled in, that are not the same in all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from foundation.errors import InputError, MergelineError
from pipeline.config.experiment import read_config

NO_SETTINGS = ("name", "workspace", "tracking")
"""Keys that say what a run is called and where it lies, not what it does."""
NOT_GIVEN = "–"


def differing_settings(files: Sequence[Path]) -> dict[str, tuple[str, ...]]:
    """Key (`train.learning_rate`) -> its value in each experiment, where they differ. A part that one lacks is told as a whole.

    InputError for a file that cannot be read.
    """
    read = [_settings(file) for file in files]
    return dict(_differing([given for given, _ in read], [whole for _, whole in read], ""))


def _settings(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """An experiment as it is written, and with its defaults (where it can still be read as one: an older file may not)."""
    try:
        given = yaml.safe_load(file.read_text())
        given = {key: value for key, value in given.items() if key not in NO_SETTINGS}
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise InputError(f"{file} cannot be read as an experiment ({error}); run it again to write it anew") from error
    try:
        whole = read_config(file)[1].model_dump(mode="json", exclude_none=True)
    except (MergelineError, OSError, TypeError, ValueError):
        whole = {}
    return given, {**given, **{key: value for key, value in whole.items() if key not in NO_SETTINGS}}


def _differing(given: Sequence[Mapping[str, Any]], whole: Sequence[Mapping[str, Any]], above: str) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = []
    for key in dict.fromkeys(key for each in whole for key in each):
        values = [each.get(key) for each in whole]
        if all(value == values[0] for value in values):
            continue
        parts = [each.get(key) for each in given]
        if None in values and all(part is None for part in parts):
            continue  # a default that one kind of experiment has and another has not
        if all(isinstance(value, dict) for value in values):
            found += _differing([part if isinstance(part, dict) else {} for part in parts], values, f"{above}{key}.")  # type: ignore[arg-type]
        else:
            found.append((f"{above}{key}", tuple(_text(value, part) for value, part in zip(values, parts, strict=True))))
    return found


def _text(value: Any, given: Any) -> str:
    """A value as a cell; of a part with many keys those that are given."""
    if value is None:
        return NOT_GIVEN
    if isinstance(value, dict):
        told = given if isinstance(given, dict) and given else {"name": value["name"]} if "name" in value else {}
        return ", ".join(f"{key} {_text(each, each)}" for key, each in told.items()) or "as by default"
    if isinstance(value, list):
        return ", ".join(_text(each, each) for each in value) or "none"
    return str(value)
