"""What one part of the records adds up to, and the file it waits in until all parts are there.

Sums are float64 and parts are added in their order, so the total is the same bytes whoever measured which part, and when.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from foundation.errors import InputError
from foundation.files import fsync_path
from trainers.checkpoints.disk import room_for


@dataclass
class Sums:
    """`values` are float64 sums on the CPU; `counts` says how many tokens (or examples) went into each measured weight."""

    values: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    samples: int = 0

    def add(self, other: "Sums") -> None:
        """Add another part's sums, in place."""
        for name, value in other.values.items():
            if name in self.values:
                self.values[name] += value
            else:
                self.values[name] = value
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.samples += other.samples


def add_parts(parts: Iterable[Sums]) -> Sums:
    """The total of all parts, which must come in their order. Holds the total and one part at a time."""
    total = Sums()
    for part in parts:
        total.add(part)
    return total


def write_sums(path: Path, sums: Sums, measurement: str) -> None:
    """Write one part's sums; the file appears whole or not at all. `measurement` identifies what they are part of.

    ResourceError where there is no room for them.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    about = {"measurement": measurement, "counts": sums.counts, "samples": sums.samples}
    values = {name: value.contiguous() for name, value in sums.values.items()}
    size = sum(value.nbytes for value in values.values())
    with room_for(size, path.parent, f"the sums of {path.stem}", lambda: temporary.unlink(missing_ok=True)):
        save_file(values, temporary, {"about": json.dumps(about, sort_keys=True)})
        fsync_path(temporary)
    os.replace(temporary, path)
    fsync_path(path.parent)


def is_part_of(path: Path, measurement: str) -> bool:
    """Whether `path` holds a part of that measurement; a file of another one, or a damaged one, does not."""
    try:
        with safe_open(path, framework="pt") as file:
            return bool(json.loads(file.metadata()["about"])["measurement"] == measurement)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return False


def read_sums(path: Path) -> Sums:
    """One part's sums as they were written; InputError for a damaged file."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            values = {name: file.get_tensor(name).to(torch.float64) for name in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as sums of a part ({error}); remove it and measure again") from error
    return Sums(values, about["counts"], about["samples"])
