"""Recipes: functions from a typed configuration to steps. A new shape of experiment is a new recipe, not a flag in the core."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.kinds import Settings
from pipeline.recipes.compare import Compare, compare
from pipeline.recipes.joint import Joint, joint
from pipeline.recipes.milestone import Milestone
from pipeline.recipes.sequential import Sequential, sequential
from pipeline.recipes.wise_ft import WiseFT, wise_ft


@dataclass(frozen=True)
class Recipe:
    """A recipe's configuration class and the function that makes its milestones."""

    config: type[Settings]
    make: Callable[[Any, Path], Iterator[Milestone]]


RECIPES = {
    "wise_ft": Recipe(WiseFT, wise_ft),
    "sequential": Recipe(Sequential, sequential),
    "joint": Recipe(Joint, joint),
    "compare": Recipe(Compare, compare),
}
