"""The contract of a merge method: what a merger declares, what it is given, what it gives back.

A merger is a frozen dataclass. Its fields are its hyperparameters, its class attributes say what it needs, and `merge` is the formula:
pure, with no files, no shards and no workers in sight. `plan.py` reads the declarations, `shard.py` calls `merge`. To add a method, write
one file with such a class and one row in `table.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Granularity(Enum):
    """The smallest piece of a tensor on which a method is exact."""

    ELEMENT = "element"
    """Any run of elements: `merge` gets flat tensors [n]."""
    ROW = "row"
    """Whole rows: `merge` gets tensors [rows, ...] cut along the first axis only."""
    TENSOR = "tensor"
    """Nothing less than the whole tensor, in its own shape."""


@dataclass(frozen=True)
class Inputs:
    """What one call of `merge` sees: the same piece of one tensor in every source that holds it.

    `tensors` are in config order and in the dtype they have on disk; all have one shape. `positions` says which sources they come from (0 =
    the first of the config), because a partial merge may lack some. `start` is the piece's first element in the flattened tensor. `base` is
    the same piece of the base checkpoint, where the method needs one. `merge` must not change them: the memory is reused.
    """

    name: str
    start: int
    tensors: tuple[Tensor, ...]
    positions: tuple[int, ...]
    base: Tensor | None = None


class Merger(Protocol):
    """One merge method with its hyperparameters.

    Contract: merging tensors whose bytes are all the same (and the same as the base's, where there is one) gives those bytes back; the
    machinery copies such pieces without calling `merge`.
    """

    granularity: ClassVar[Granularity]
    needs_base: ClassVar[bool]
    statistics: ClassVar[tuple[str, ...]]
    """Names of what must be measured on each source before merging, e.g. "gram"."""
    rounds: ClassVar[int]
    """Counting passes over all tensors that must come before the writing pass."""

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError if the hyperparameters do not fit these sources. Must work without torch."""
        ...

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """What each source counts for, in a few words, e.g. "weight 0.1": shown in the plan and in the model card."""
        ...

    def files_from(self, source_names: Sequence[str]) -> str:
        """The source whose config, tokenizer and processor the output carries unless the user says otherwise."""
        ...

    def merge(self, inputs: Inputs) -> Tensor:
        """The merged piece, in the shape of the inputs, in the compute dtype (float32; float64 for float64 tensors) or already rounded to
        that of the first input. Pure: the same inputs give the same bits, on any worker."""
        ...
