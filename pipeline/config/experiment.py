"""An experiment read and built: its file and overrides become configuration, milestones and the graph of steps. Runs nothing.

The run's name is the experiment's name followed by those overrides that change what is made (`digits_wise_ft-alpha=0.3`), so that two
settings never share a report. Overrides that only say how to run (workers, actors, the workspace) do not show.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import create_model

from foundation.errors import ConfigError, InputError
from foundation.files import file_name
from foundation.hints import unknown
from pipeline.config.bases import KnownBase, check_bases
from pipeline.config.inputs import check_place
from pipeline.config.kinds import Settings, validated
from pipeline.config.settings import MAX_NAME, Experiment
from pipeline.config.suite_file import lay_suite_under
from pipeline.config.yaml_file import YamlFile, apply_override, read_yaml
from pipeline.objects.marker import mark
from pipeline.recipes import RECIPES
from pipeline.recipes.milestone import Milestone
from pipeline.step import Step, topological
from pipeline.store import Store
from pipeline.tracking.backend import without_password
from tasks.benchmarks.fetch import is_hub_data

EXPERIMENT_FILE = "experiment.yaml"
OF_DATA_NO_PLACE = ("scoring", "sampling_strategy", "kind", "set", "variant", "benchmark", "answering", "options")
"""The keys below `data` whose text names no file."""
PLACES = ("base", "checkpoint", "model", "beit", "vlmo", "tokenizer")
"""The keys whose text names a checkpoint or tokenizer, where there is one on this machine."""


@dataclass(frozen=True)
class Built:
    """An experiment ready to be planned or run."""

    config: Any  # Experiment and the recipe's own keys, in one object
    name: str
    milestones: tuple[Milestone, ...]
    resolved: dict[str, Any]  # the file with its overrides, as plain data
    bases: tuple[KnownBase, ...] = ()  # the checkpoints on this machine that it starts from

    @cached_property
    def steps(self) -> list[Step]:
        """Every step of the experiment, inputs first."""
        return topological(self.targets)

    @cached_property
    def targets(self) -> list[Step]:
        """The steps whose records make the experiment done: every evaluation, what was measured, and the model each stream ends with."""
        last = {(milestone.arm, milestone.seed): milestone.model for milestone in self.milestones}
        measured = [milestone.measured for milestone in self.milestones if milestone.measured is not None]
        return [*(milestone.evaluation for milestone in self.milestones), *measured, *last.values()]

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
    lay_suite_under(file)
    recipe = file.data.get("recipe")
    if recipe is None:
        raise ConfigError(
            f"{file.at(('recipe',))}: no recipe is named; add a line such as recipe: wise_ft. Known: {', '.join(sorted(RECIPES))}"
        )
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise ConfigError(f"{file.at(('recipe',))}: {unknown('recipe', str(recipe), RECIPES)}")
    config = validated(_whole(recipe), file, relatives={name: known.config for name, known in RECIPES.items()})
    if hasattr(config, "streams"):
        list(config.streams(file))  # every arm is checked with its lines
    return file, config


def build(path: Path, overrides: Sequence[str] = (), fitting: bool = False) -> Built:
    """Read the file, apply the overrides and make the steps (a local base checkpoint is read once, for its digest).

    `fitting`: also hold a local base against its model first, which takes the seconds of importing transformers; not where all is stored.
    """
    file, config = read_config(path, overrides)
    check_place(Path(config.workspace).absolute(), "workspace")
    mark(Path(config.workspace).absolute() / "store", config.objects)
    store, known = Store(Path(config.workspace) / "store"), []
    bases = check_bases(file, config)
    for base in bases:
        if base.place is not None and store.has_taken(base.place):
            known.append(base)  # looked at again only if something is to run
        elif fitting:
            base.check_runs()
    milestones = _milestones(config)
    if fitting and any(store.record(milestone.evaluation) is None for milestone in milestones):
        for base in known:
            base.check_runs()
    name = _run_name(config.name, _telling(path, overrides, milestones), milestones)
    return Built(config, name, milestones, _resolved(file, config, name), bases)


def _whole(recipe: str) -> type[Settings]:
    return create_model(recipe, __base__=(RECIPES[recipe].config, Experiment))


def _milestones(config: Any) -> tuple[Milestone, ...]:
    return tuple(RECIPES[config.recipe].make(config, Path(config.workspace).absolute() / "store"))


def _identity(milestones: Sequence[Milestone]) -> str:
    places = [f"{m.arm}|{m.seed}|{m.stage}|{m.role}|{m.evaluation.fingerprint}" for m in milestones]
    return hashlib.sha256("\n".join(places).encode()).hexdigest()


def _telling(path: Path, overrides: Sequence[str], milestones: Sequence[Milestone]) -> list[str]:
    """The fewest overrides, in their order, that still ask for the same steps: those that say what the run makes."""
    kept = [override for override in overrides if not override.strip().startswith(("name=", "workspace=", "objects="))]
    silent = [override for override in overrides if override not in kept]
    for override in tuple(kept):
        position = kept.index(override)
        others = kept[:position] + kept[position + 1 :]
        try:
            _, config = read_config(path, [*others, *silent])
            if _identity(_milestones(config)) == _identity(milestones):
                kept = others
        except (ConfigError, InputError):
            continue  # without it there is no experiment, so it tells
    return kept


def _run_name(name: str, overrides: Sequence[str], milestones: Sequence[Milestone]) -> str:
    """The experiment's name and its telling overrides; a name too long for a directory ends in a digest of what is made."""
    whole = "-".join([name, *(file_name(override.strip()) for override in overrides)])
    return whole if len(whole) <= MAX_NAME else f"{whole[: MAX_NAME - 9]}-{_identity(milestones)[:8]}"


def _resolved(file: YamlFile, config: Any, name: str) -> dict[str, Any]:
    """The file with its overrides, such that running it, from wherever, goes on with this run."""
    tracking = {**(file.data.get("tracking") or {}), "experiment": config.tracking.experiment or config.name}
    if config.tracking.uri:
        tracking["uri"] = without_password(config.tracking.uri)  # this is kept beside results and shown in MLflow
    places = {"workspace": str(Path(config.workspace).absolute())}
    return _absolute_places({**file.data, "name": name, "tracking": tracking, **places})


def _absolute_places(data: dict[str, Any]) -> dict[str, Any]:
    """The same data with every local base checkpoint and data file as an absolute path."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        found[key] = _absolute_data(value) if key == "data" else _absolute_base(key, value)
    return found


def _absolute_base(key: str, value: Any) -> Any:
    if key == "harness" and isinstance(value, dict):
        return {name: _absolute_harness(keys) for name, keys in value.items()}
    if key in PLACES and isinstance(value, str) and value != "digits" and Path(value).expanduser().exists():
        return str(Path(value).expanduser().absolute())
    return _absolute_places(value) if isinstance(value, dict) else value


def _absolute_harness(keys: Any) -> Any:
    """What is said of one harness, with the places of its interpreter and of the user's tasks absolute."""
    if not isinstance(keys, dict):
        return keys
    return {key: os.path.abspath(os.path.expanduser(value)) if key in ("python", "directory") else value for key, value in keys.items()}


def _absolute_data(value: Any) -> Any:
    """The same tasks in files with the place of every file absolute: brace lists and mixtures among them."""
    if isinstance(value, dict):
        kept = {key for key in value if key in OF_DATA_NO_PLACE or (key == "directory" and is_hub_data(str(value[key])))}
        return {key: value[key] if key in kept else _absolute_data(value[key]) for key in value}
    if isinstance(value, list):
        return [_absolute_data(each) for each in value]
    return str(Path(value).expanduser().absolute()) if isinstance(value, str) else value
