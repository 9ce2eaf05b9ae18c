"""`compare`: several recipes and settings side by side, each with several seeds, in one graph that shares what they have in common.

Arms are the `common` keys with their own laid over them. Steps with equal fingerprints (the base, its evaluation, a first stage that two
arms share) run once.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from foundation.errors import ConfigError
from foundation.hints import unknown
from pipeline.config import Settings, Stream, validated
from pipeline.recipes.milestone import Milestone
from pipeline.recipes.sequential import Sequential, sequential
from pipeline.recipes.wise_ft import WiseFT, wise_ft
from pipeline.yaml_file import YamlFile

ARMS: dict[str, tuple[type[Stream], Any]] = {"sequential": (Sequential, sequential), "wise_ft": (WiseFT, wise_ft)}


class Compare(Settings):
    """`arms` maps a name to the keys that differ from `common`; each arm names its recipe."""

    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    common: dict[str, Any]
    arms: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]

    def streams(self) -> Iterator[tuple[str, str, Stream]]:
        """(arm, recipe, configuration) of each arm and seed, seeds innermost; ConfigError that names the arm."""
        for arm, own in self.arms.items():
            keys = _laid_over(self.common, own)
            recipe = keys.pop("recipe", None)
            if recipe not in ARMS:
                raise ConfigError(f"arm {arm!r}: {unknown('recipe', str(recipe), ARMS)}")
            if "seed" in keys:
                raise ConfigError(f"arm {arm!r}: 'seed' belongs to the whole comparison; list the seeds under 'seeds'")
            for seed in self.seeds:
                yield arm, recipe, validated(ARMS[recipe][0], YamlFile(f"arm {arm!r}", keys), {**keys, "seed": seed})


def compare(c: Compare, store: Path) -> Iterator[Milestone]:
    """The milestones of every arm and seed."""
    for arm, recipe, stream in c.streams():
        make = ARMS[recipe][1]
        for milestone in make(stream, store):
            yield replace(milestone, arm=arm)


def _laid_over(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(common)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _laid_over(merged[key], value) if both else value
    return merged
