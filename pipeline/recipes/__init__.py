"""Recipes: functions from a typed configuration to steps. A new shape of experiment is a new recipe, not a flag in the core."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.kinds import Settings
from pipeline.config.modality_merge_settings import ModalityMerging
from pipeline.config.pair_settings import ModalityPretraining, ModalityStream
from pipeline.recipes.compare import Compare, compare
from pipeline.recipes.joint import Joint, joint
from pipeline.recipes.milestone import Milestone
from pipeline.recipes.modality import modality_agnostic, modality_fine_tune, modality_merging, modality_specific
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
    "modality_agnostic": Recipe(ModalityPretraining, modality_agnostic),
    "modality_specific": Recipe(ModalityPretraining, modality_specific),
    "modality_merging": Recipe(ModalityMerging, modality_merging),
    "modality_fine_tune": Recipe(ModalityStream, modality_fine_tune),
}
