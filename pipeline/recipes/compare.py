"""`compare`: several recipes and settings side by side, each with several seeds, in one graph that shares what they have in common.

Arms are the `common` keys with their own laid over them. Steps with equal fingerprints (the base, its evaluation, a first stage that two
arms share) run once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from foundation.errors import ConfigError
from foundation.files import file_name
from foundation.hints import unknown
from pipeline.config.kinds import Seed, Settings, validated
from pipeline.config.settings import Stream
from pipeline.config.yaml_file import Place, YamlFile
from pipeline.recipes.joint import Joint, joint
from pipeline.recipes.milestone import Milestone
from pipeline.recipes.sequential import Sequential, sequential
from pipeline.recipes.wise_ft import WiseFT, wise_ft

ARMS: dict[str, tuple[type[Stream], Any]] = {"sequential": (Sequential, sequential), "wise_ft": (WiseFT, wise_ft), "joint": (Joint, joint)}


@dataclass(frozen=True)
class Case:
    """An arm as it is run, by its name in tables: the arm it is of, its own keys, and the order of the tasks where there are several."""

    name: str
    arm: str
    keys: dict[str, Any]
    order: str = ""


class Compare(Settings):
    """`arms` maps a name to the keys that differ from `common`; each arm names its recipe.

    `orders` maps a name to the tasks in one order: every arm is then run in each of them, as `arm [order]`.
    """

    seeds: Annotated[list[Seed], Field(min_length=1)]
    common: dict[str, Any]
    arms: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    orders: dict[str, Annotated[list[str], Field(min_length=1)]] = {}  # noqa: RUF012

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError(f"seeds {value} name one seed twice; name each once")
        return value

    @field_validator("arms")
    @classmethod
    def _distinct_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        plain: dict[str, str] = {}
        for arm in value:
            first = plain.setdefault(file_name(arm), arm)
            if not arm.strip() or first != arm:
                raise ValueError(
                    f"arms {first!r} and {arm!r} would share a directory; give each a name of its own"
                    if arm.strip()
                    else "an arm has no name; give it one"
                )
        return value

    @model_validator(mode="after")
    def _same_tasks(self) -> "Compare":
        if not self.orders:
            return self
        first, tasks = next(iter(self.orders.items()))
        for name, order in self.orders.items():
            if sorted(order) != sorted(tasks):
                raise ValueError(f"orders: {name!r} has tasks {order}, {first!r} {tasks}; name the same tasks in each, in another order")
        placed = ["common"] * ("tasks" in self.common) + [f"arm {arm!r}" for arm, own in self.arms.items() if "tasks" in own]
        if placed:
            raise ValueError(f"orders say which tasks are learned, and so does {placed[0]}; keep one of them")
        return self

    @property
    def cases(self) -> "list[Case]":
        """The arms that are run: each as it is, or in each of the orders."""
        if not self.orders:
            return [Case(arm, arm, own) for arm, own in self.arms.items()]
        orders = [(f" [{name}]", name, {"tasks": order}) for name, order in self.orders.items()]
        return [Case(arm + suffix, arm, {**own, **tasks}, name) for arm, own in self.arms.items() for suffix, name, tasks in orders]

    def streams(self, file: YamlFile | None = None) -> Iterator[tuple[str, str, Stream]]:
        """(arm, recipe, configuration) of each arm and seed, seeds innermost; ConfigError that names the arm and its line in `file`."""
        for case in self.cases:
            arm, keys = case.name, _laid_over(self.common, case.keys)
            place = _seen_as(case, keys, file)
            if "seed" in keys:
                raise ConfigError(
                    f"{place.at(('seed',))}: arm {arm!r}: 'seed' belongs to the whole comparison; list the seeds under 'seeds'"
                )
            if "recipe" not in keys:
                raise ConfigError(f"{place.at(())}: arm {arm!r} names no recipe; add one of {', '.join(ARMS)}, e.g. recipe: wise_ft")
            recipe = keys.pop("recipe")
            if not isinstance(recipe, str) or recipe not in ARMS:
                raise ConfigError(f"{place.at(('recipe',))}: arm {arm!r}: {unknown('recipe', str(recipe), ARMS)}")
            relatives = {name: model for name, (model, _) in ARMS.items()}
            try:
                streams = [validated(ARMS[recipe][0], place, {**keys, "seed": seed}, relatives) for seed in self.seeds]
            except ConfigError as error:
                raise ConfigError(f"{error}\n(in arm {arm!r}, recipe {recipe})") from error
            yield from ((arm, recipe, stream) for stream in streams)


def compare(c: Compare, store: Path) -> Iterator[Milestone]:
    """The milestones of every arm and seed."""
    for arm, recipe, stream in c.streams():
        make = ARMS[recipe][1]
        for milestone in make(stream, store):
            yield replace(milestone, arm=arm)


def _seen_as(case: "Case", keys: dict[str, Any], file: YamlFile | None) -> YamlFile:
    """The file as one arm sees it: each key stands where the arm (or its order) gives it, else where `common` does."""
    if file is None:
        return YamlFile(f"arm {case.name!r}", keys)
    rooms: tuple[Place, ...] = (("common",), ("arms", case.arm))
    lines = {place[len(room) :]: line for room in rooms for place, line in file.lines.items() if place[: len(room)] == room}
    order = ("orders", case.order)
    lines |= {("tasks", *place[len(order) :]): line for place, line in file.lines.items() if place[: len(order)] == order}
    return YamlFile(file.name, keys, lines)


def _other(key: str, own: dict[str, Any], common: dict[str, Any]) -> bool:
    """Whether an arm names another strategy than all arms share: its settings are then its own alone."""
    return key == "strategy" and own.get("name", common.get("name")) != common.get("name")


def _laid_over(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    merged = dict(common)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict) and not _other(key, value, merged[key])
        merged[key] = _laid_over(merged[key], value) if both else value
    return merged
