"""What is asked of a cluster: an experiment that is right, with every place in it one that the cluster can see. Loads no Ray.

Inside a job the working directory is a copy that goes away, and no weights or data travel with it: whatever an experiment names must be an
absolute path on the storage that all nodes share, or a hub id.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import ConfigError
from mergers.checkpoints.resolve import is_hub_id
from pipeline.command.validate import validate_experiment
from pipeline.config.experiment import OF_DATA_NO_PLACE, PLACES, read_config
from pipeline.config.yaml_file import Place, YamlFile, apply_override, read_yaml
from pipeline.tracking.backend import without_secrets
from tasks.benchmarks.fetch import is_hub_data

IDENTITY = 10
"""Hexadecimal digits of a job's identity in its id."""


@dataclass(frozen=True)
class JobRequest:
    """An experiment to be run as a job."""

    file: Path
    overrides: tuple[str, ...]
    name: str
    identity: str
    workspace: Path
    summary: str  # what `validate` says; empty where it could not look at everything
    places: tuple[str, ...]  # files and directories that the experiment names: the nodes must have them there
    elsewhere: tuple[str, ...]  # those of them that are not on this machine
    suites: tuple[Path, ...]  # suite files that the experiment names, which travel with it

    @property
    def submission(self) -> str:
        """The id of its first attempt, the same wherever and whenever it is submitted."""
        return f"{self.name}-{self.identity}"

    def attempt(self, number: int) -> str:
        """The id of an attempt, from 1 on."""
        return self.submission if number == 1 else f"{self.submission}-{number}"

    def number(self, submission: str) -> int | None:
        """Which attempt a submission id is; None if it is another job's."""
        found = re.fullmatch(re.escape(self.submission) + r"(?:-([0-9]+))?", submission)
        return None if found is None else int(found[1] or 1)

    def entrypoint(self, python: str) -> str:
        """The command that the job runs, from the working directory that travels with it."""
        return shlex.join([python, "-m", "pipeline", "run", self.packed_file, *self.overrides])

    @property
    def packed_file(self) -> str:
        """The experiment file's place in the working directory."""
        return packed_place(self.file) or self.file.name


def packed_place(path: Path) -> str | None:
    """Where a file lies in the job's working directory: where it lies below this one; None for a file that does not."""
    try:
        return path.absolute().resolve().relative_to(Path.cwd().resolve()).as_posix()
    except ValueError:
        return None


def read_request(path: Path, overrides: Sequence[str]) -> JobRequest:
    """Check an experiment as `validate` does, as far as this machine can see; ConfigError and InputError for what must not be submitted."""
    suites = tuple(_suites(path, overrides))
    file, config = read_config(path, overrides)
    if not config.workspace.is_absolute():
        add = "add workspace=/path/that/all/nodes/share to the command"
        if file.value(("workspace",)) is None:
            raise ConfigError(f"no workspace is set, so a job would write to its own directory, which is removed after it; {add}")
        raise file.error(
            ("workspace",), f"workspace is {str(config.workspace)!r}, below a job's own directory, which is removed after it; {add}"
        )
    _check_no_secrets(path, overrides, file)
    places = []
    for place, text in _places(file.data):
        if not Path(text).is_absolute():
            raise file.error(
                place,
                f"{'.'.join(map(str, place))} is {text!r}, which a job would look for in a directory of its own; files do not travel "
                "with a job: put them on the storage that all nodes share and give the absolute path",
            )
        places.append(text)
    places = list(dict.fromkeys(places))
    elsewhere = tuple(text for text in places if not _is_here(text))
    summary = "" if elsewhere else validate_experiment(path, overrides)
    identity = hashlib.sha256(json.dumps(file.data, sort_keys=True, default=str).encode()).hexdigest()[:IDENTITY]
    return JobRequest(path, tuple(overrides), config.name, identity, config.workspace, summary, tuple(places), elsewhere, suites)


def _is_here(text: str) -> bool:
    """Whether this machine has the place; of a list in braces, a{1,2}.json, the directory before it."""
    before, brace, _ = text.partition("{")
    return Path(before).parent.is_dir() if brace else Path(text).exists()


def _check_no_secrets(path: Path, overrides: Sequence[str], file: YamlFile) -> None:
    """What is submitted can be read by everyone who may use the cluster."""
    for override in overrides:
        if without_secrets(override) != override:
            key = override.partition("=")[0]
            raise ConfigError(
                f"override {key}=… holds a password or token, which would stand in the job's information; set it on the nodes"
            )
    for place in file.lines:
        text = file.value(place)
        if isinstance(text, str) and without_secrets(text) != text:
            raise file.error(place, "this holds a password or token, which would lie on the cluster with the job; set it on the nodes")


def _suites(path: Path, overrides: Sequence[str]) -> Iterator[Path]:
    """The suite files an experiment names, as the job will look for them; ConfigError for one that the job would not find."""
    file = read_yaml(path)
    for override in overrides:
        apply_override(file, override)
    for place in (("suite",), ("common", "suite")):
        named = file.value(place)
        if not isinstance(named, str):
            continue
        if named.startswith("~") or Path(named).is_absolute() or packed_place(Path(named)) is None:
            raise file.error(place, f"suite {named} does not travel with the job; copy it below this directory, and name it from here")
        yield Path(named)


def _places(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every text that names a file or directory of the user's, and where it stands in the file."""
    if not isinstance(value, dict):
        return
    for key, held in value.items():
        here = (*place, key)
        if key == "data":
            yield from _data_places(held, here)
        elif key == "harness" and isinstance(held, dict):
            for name, keys in held.items():
                named = keys if isinstance(keys, dict) else {}
                yield from (((*here, name, each), named[each]) for each in ("python", "directory") if isinstance(named.get(each), str))
        elif key in PLACES and isinstance(held, str):
            if held not in ("digits", "digits_llava") and not is_hub_id(held):
                yield here, held
        else:
            yield from _places(held, here)


def _data_places(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, dict):
        for key, held in value.items():
            if key in OF_DATA_NO_PLACE or (key == "directory" and is_hub_data(str(held))):
                continue
            yield from _data_places(held, (*place, key))
    elif isinstance(value, list):
        for index, held in enumerate(value):
            yield from _data_places(held, (*place, index))
    elif isinstance(value, str):
        yield place, value
