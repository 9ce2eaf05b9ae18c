"""A measured statistic as a directory of two files, which appears whole or not at all and can be used again and again.

    gram.safetensors    [in, in] by the name of the weight (Fisher: the weight's own shape), which is what merging reads
    gram.json           format, model, data and how it was measured, tokens by weight, SHA-256 of the other file

Grams are kept in the dtype their products were taken in. After products in float32, float64 would keep digits that are rounding, and every
merge would read twice the bytes. RegMean solves in float64 all the same. A Fisher is float32. Neither file has a date, a path or a host in
it, so equal measurements are equal bytes.
"""

import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foundation.errors import InputError
from foundation.files import directory_manifest, file_sha256, manifest_digest, publish_directory, write_json_atomic
from tasks.pairs.records import PairSet
from trainers.checkpoints.disk import room_for
from trainers.checkpoints.output import weight_files
from trainers.fisher.statistics import shapes
from trainers.modality.statistics.sums import Sums

FORMAT = 1
"""The version of the two files. Raised when a reader of today could misread them."""


class Measurement(Protocol):
    """What can be measured in parts. Frozen values that can be sent to a worker."""

    @property
    def statistic(self) -> str:
        """Its name, and that of its files: "gram", "fisher"."""

    @property
    def checkpoint(self) -> Path:
        """The model's directory."""

    @property
    def sets(self) -> tuple[PairSet, ...]:
        """The data."""

    @property
    def spec(self) -> Any:
        """What is measured: a frozen value that prints itself whole."""

    @property
    def parts(self) -> int:
        """How many parts there are."""

    def measure(self, part: int) -> Sums:
        """The sums of one part, from 0: a pure function."""

    def finish(self, sums: Sums) -> dict[str, Tensor]:
        """From the total of all parts to the statistic, by weight."""

    def described(self) -> dict[str, Any]:
        """How it is measured, as JSON."""


@dataclass(frozen=True)
class About:
    """What a statistic says of itself. `model` is the digest of the weights it was measured on, `sets` are the sets with their versions,

    `samples` the training records, `tokens` the tokens (Fisher: examples) that each weight has seen, `how` what else the measurement says.
    """

    statistic: str
    model: str
    sets: tuple[str, ...]
    samples: int
    tokens: Mapping[str, int]
    how: Mapping[str, Any]
    split: str = "train"
    format: int = FORMAT


def measurement_text(measurement: Measurement) -> str:
    """All that decides the sums, as one line: equal texts are equal sums. Reads the checkpoint's weights once."""
    return json.dumps([asdict(about_of(measurement, Sums())), repr(measurement.spec)], sort_keys=True)


def about_of(measurement: Measurement, sums: Sums) -> About:
    """What the file of this measurement says, with the counts of `sums`."""
    sets = tuple(f"{each!r} version {each.version}" for each in measurement.sets)
    model = model_digest(measurement.checkpoint)
    return About(measurement.statistic, model, sets, sums.samples, dict(sorted(sums.counts.items())), measurement.described())


def model_digest(checkpoint: Path) -> str:
    """SHA-256 over what decides a model's outputs: weights, config, tokenizer and image processor; not over cards and licences."""
    weights = {path.name for path in weight_files(checkpoint)}
    found = directory_manifest(checkpoint)
    return manifest_digest({name: digest for name, digest in found.items() if name in weights or name.endswith((".json", ".txt"))})


def write_statistics(directory: Path, measurement: Measurement, sums: Sums) -> About:
    """Make `directory` from the total of all parts, replacing what was there; uses `sums` up.

    InputError where a value is not finite, or does not belong to a weight of the checkpoint, ResourceError where there is no room.
    """
    about = about_of(measurement, sums)
    values = dict(sorted(measurement.finish(sums).items()))
    check_values(measurement, values)
    temporary = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir(parents=True)
    try:
        tensors = temporary / f"{about.statistic}.safetensors"
        with room_for(sum(value.nbytes for value in values.values()), directory.parent, f"the {about.statistic}"):
            save_file(values, tensors)
        written = asdict(about) | {"sha256": file_sha256(tensors)}
        write_json_atomic(temporary / f"{about.statistic}.json", written)
        publish_directory(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return about


def check_values(measurement: Measurement, values: Mapping[str, Tensor]) -> None:
    """Refuse values that no merge could use."""
    held = shapes(measurement.checkpoint)
    for name, value in values.items():
        shape = held.get(name)
        fits = shape is not None and tuple(value.shape) == ((shape[1], shape[1]) if measurement.statistic == "gram" else shape)
        if not fits:
            raise InputError(
                f"{measurement.checkpoint}: {measurement.statistic} {list(value.shape)} was measured for {name!r}, but the checkpoint has "
                f"{'no such tensor' if shape is None else list(shape)}; load it and save it again"
            )
        if not bool(torch.isfinite(value).all()):
            raise InputError(
                f"{measurement.checkpoint}: the {measurement.statistic} of {name} is not finite; look for weights that are no numbers"
            )


def read_about(directory: Path, statistic: str = "gram") -> About:
    """What the statistic in `directory` says of itself; InputError where there is none, or one of another format."""
    return _read_json(directory, statistic)[0]


def read_statistics(directory: Path, statistic: str = "gram", checkpoint: Path | None = None) -> tuple[dict[str, Tensor], About]:
    """The statistic by weight, and what it says of itself.

    With `checkpoint`, that is the model it must have been measured on. Raises InputError for another model's, another format's, or damaged
    files.
    """
    about, digest = _read_json(directory, statistic)
    tensors = directory / f"{statistic}.safetensors"
    if not tensors.is_file() or file_sha256(tensors) != digest:
        raise InputError(f"{tensors} is not the file that {statistic}.json beside it was written with; measure again")
    if checkpoint is not None:
        check_model(directory, about, checkpoint)
    return load_file(tensors), about


def check_model(directory: Path, about: About, checkpoint: Path) -> None:
    """InputError where a statistic was not measured on `checkpoint`."""
    digest = model_digest(checkpoint)
    if about.model != digest:
        raise InputError(
            f"the {about.statistic} in {directory} was measured on another model (sha256 {about.model[:12]}…) than {checkpoint} "
            f"({digest[:12]}…); measure it on that one"
        )


def _read_json(directory: Path, statistic: str) -> tuple[About, str]:
    """What the JSON file says, and the digest of the tensors' file."""
    path = directory / f"{statistic}.json"
    if not path.is_file():
        raise InputError(f"{directory} holds no {statistic}.json; name the directory that a measurement of the {statistic} has written")
    try:
        found = json.loads(path.read_text())
        if found["format"] != FORMAT:
            raise InputError(f"{path} has format {found['format']}, this version reads {FORMAT}; measure again")
        digest = str(found.pop("sha256"))
        return About(**{**found, "sets": tuple(found["sets"])}), digest
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); measure again") from error
