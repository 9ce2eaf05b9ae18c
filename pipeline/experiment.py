"""An experiment read and built: its file and overrides become configuration, milestones and the graph of steps. Runs nothing.

The run's name is the experiment's name followed by those overrides that change what is made (`digits_wise_ft-alpha=0.3`), so that two
settings never share a report. Overrides that only say how to run (workers, actors, the workspace) do not show.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import create_model

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from pipeline.config import Experiment, Settings, validated
from pipeline.recipes import RECIPES
from pipeline.recipes.milestone import Milestone
from pipeline.step import Step, topological
from pipeline.yaml_file import YamlFile, apply_override, read_yaml

EXPERIMENT_FILE = "experiment.yaml"


@dataclass(frozen=True)
class Built:
    """An experiment ready to be planned or run."""

    config: Any  # Experiment and the recipe's own keys, in one object
    name: str
    milestones: tuple[Milestone, ...]
    resolved: dict[str, Any]  # the file with its overrides, as plain data

    @cached_property
    def steps(self) -> list[Step]:
        """Every step of the experiment, inputs first."""
        return topological([milestone.evaluation for milestone in self.milestones])

    @cached_property
    def targets(self) -> list[Step]:
        """The steps whose records make the experiment done: every evaluation, and the model each stream ends with."""
        last = {(milestone.arm, milestone.seed): milestone.model for milestone in self.milestones}
        return [*(milestone.evaluation for milestone in self.milestones), *last.values()]

    @property
    def identity(self) -> str:
        """SHA-256 of what the experiment makes: equal for two files, machines or overrides that ask for the same steps."""
        return _identity(self.milestones)

    @property
    def workspace(self) -> Path:
        """The directory that holds store, runs and the tracking database."""
        return Path(self.config.workspace).absolute()

    @property
    def run_directory(self) -> Path:
        """The readable view of this run."""
        return self.workspace / "runs" / self.name


def read_config(path: Path, overrides: Sequence[str] = ()) -> tuple[YamlFile, Any]:
    """The checked configuration of an experiment file; ConfigError names line and nearest right word."""
    file = read_yaml(path)
    for override in overrides:
        apply_override(file, override)
    recipe = file.data.get("recipe")
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise ConfigError(f"{file.at(('recipe',))}: {unknown('recipe', str(recipe), RECIPES)}")
    return file, validated(_whole(recipe), file)


def build(path: Path, overrides: Sequence[str] = ()) -> Built:
    """Read the file, apply the overrides and make the steps (a local base checkpoint is read once, for its digest)."""
    file, config = read_config(path, overrides)
    milestones = _milestones(config)
    told = [override for position, override in enumerate(overrides) if _changes(path, overrides, position, milestones)]
    name = "-".join([config.name, *(re.sub(r"[^A-Za-z0-9._=+-]+", "_", override) for override in told)])
    return Built(config, name, milestones, {**file.data, "workspace": str(Path(config.workspace).absolute())})


def validate(path: Path, overrides: Sequence[str] = ()) -> str:
    """Check the file and what can be checked of its inputs without reading weights; a sentence on what it would do."""
    _, config = read_config(path, overrides)
    if (base := getattr(config, "base", None)) is not None and base.checkpoint is not None:
        check_checkpoint(base.checkpoint)
    streams = list(config.streams()) if hasattr(config, "streams") else []
    for arm, _, stream in streams:
        if stream.base.checkpoint is not None:
            check_checkpoint(stream.base.checkpoint, f"arm {arm!r}: ")
    what = f"{len(config.arms)} arms x {len(config.seeds)} seeds" if streams else f"{len(config.tasks)} stages: {', '.join(config.tasks)}"
    return f"valid; recipe {config.recipe}, {what}"


def check_checkpoint(text: str, where: str = "") -> None:
    """InputError unless a local checkpoint is whole, by its headers; a hub id is only checked for its form."""
    from mergers import read_checkpoint, resolve_checkpoint
    from mergers.resolve import is_hub_id

    if not is_hub_id(text):
        try:
            read_checkpoint(resolve_checkpoint(text))
        except InputError as error:
            raise InputError(f"{where}base: {error}") from error


def _whole(recipe: str) -> type[Settings]:
    return create_model(recipe, __base__=(RECIPES[recipe].config, Experiment))


def _milestones(config: Any) -> tuple[Milestone, ...]:
    return tuple(RECIPES[config.recipe].make(config, Path(config.workspace).absolute() / "store"))


def _identity(milestones: Sequence[Milestone]) -> str:
    places = [f"{m.arm}|{m.seed}|{m.stage}|{m.role}|{m.evaluation.fingerprint}" for m in milestones]
    return hashlib.sha256("\n".join(places).encode()).hexdigest()


def _changes(path: Path, overrides: Sequence[str], position: int, milestones: Sequence[Milestone]) -> bool:
    """Whether leaving out one override would give other steps (or no valid experiment at all)."""
    if overrides[position].startswith(("name=", "workspace=")):
        return False
    others = [override for index, override in enumerate(overrides) if index != position]
    try:
        _, config = read_config(path, others)
        return _identity(_milestones(config)) != _identity(milestones)
    except ConfigError:
        return True
