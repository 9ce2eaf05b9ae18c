"""The contract of a merge method: what a merger declares, what it is given, what it gives back.

A merger is a frozen dataclass. Its fields are its hyperparameters, its class attributes say what it needs, and `merge` is the formula:
pure, with no files, no shards and no workers in sight. Some methods must measure whole tensors, or the whole model, before they can merge
the first element: they ask for counting rounds. In a round every block is shown to `observe`, what it returns is added up over all blocks
of the tensor (or of the model), and `summarize` turns the total into what the next round and the merge will know.

To add a method, write one file in `methods/` with such a class and one row in `table.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

    Array = ndarray[Any, Any]


class Granularity(Enum):
    """The smallest piece of a tensor on which a method is exact."""

    ELEMENT = "element"
    """Any run of elements: `merge` gets flat tensors [n]."""
    ROW = "row"
    """Whole rows of the matrix [shape[0], all else]: `merge` gets tensors [rows, columns]. A vector or scalar is one row."""
    TENSOR = "tensor"
    """Nothing less than the whole tensor, in its own shape."""


class Need(Enum):
    """Whether a method works with a base checkpoint."""

    NO = "no"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True)
class Statistic:
    """What must have been measured on each source before merging, stored as safetensors under the names of the weights.

    `per_element`: it has the weight's shape and is read over the same range; otherwise (a Gram matrix) it is read whole.
    """

    name: str
    per_element: bool


@dataclass(frozen=True)
class Inputs:
    """What one call of `observe` or `merge` sees: the same piece of one tensor in every source that holds it.

    `tensors` are in config order; all have one shape, each the dtype it has on disk. `positions` says which sources they come from (0 = the
    first of the config), because a partial merge may lack some, and `sources` gives their names. `start` is the piece's first element in
    the flattened tensor, `elements` the size of the whole tensor. `base` is the same piece of the base checkpoint, where there is one.
    `statistics` holds the declared statistic of each tensor's source, None where that source has none for this tensor. `known` is what
    `summarize` returned after the last counting round. Nothing here may be changed in place: the memory is reused.
    """

    name: str
    start: int
    tensors: tuple[Tensor, ...]
    positions: tuple[int, ...]
    base: Tensor | None = None
    sources: tuple[str, ...] = ()
    elements: int = 0
    statistics: tuple[Tensor | None, ...] = ()
    known: Array | None = None


class Merger(Protocol):
    """One merge method with its hyperparameters. `Method` supplies what most methods share.

    Contract: merging tensors whose bytes are all the same (and the same as the base's, where there is one) gives those bytes back.
    """

    @property
    def granularity(self) -> Granularity:
        """The smallest piece on which the method is exact."""
        ...

    @property
    def base(self) -> Need:
        """Whether it works with a base checkpoint."""
        ...

    @property
    def statistic(self) -> Statistic | None:
        """What must be measured on each source before merging, if anything."""
        ...

    @property
    def rounds(self) -> int:
        """Counting rounds before the writing pass, at most."""
        ...

    @property
    def pooled(self) -> bool:
        """Whether counting rounds add up over the whole model rather than over each tensor."""
        ...

    @property
    def on_device(self) -> bool:
        """Whether its formula computes wherever its tensors are, on a GPU too."""
        ...

    @property
    def copies_equal(self) -> bool:
        """Whether a block that is the same everywhere comes back as it is, whatever surrounds it: then `merge` is not called for it.
        Not so where coefficients that depend on the whole tensor need not sum to 1."""
        ...

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError if the hyperparameters do not fit these sources. Must work without torch."""
        ...

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """What each source counts for, in a few words, e.g. "weight 0.1": shown in the plan and in the model card."""
        ...

    def files_from(self, source_names: Sequence[str]) -> str | None:
        """The source whose config, tokenizer and processor the output carries unless the user says otherwise; None for the base."""
        ...

    def check_statistics(
        self, name: str, shape: tuple[int, ...], found: Sequence[tuple[int, ...] | None], sources: Sequence[str] = ()
    ) -> None:
        """Raise InputError if what was measured of tensor `name` does not suffice: `found` holds the shape of each source's statistic,
        None where it has none. `sources` are the names to call them by."""
        ...

    def check_holders(self, name: str, positions: Sequence[int]) -> None:
        """Raise ConfigError if tensor `name` cannot be merged over the sources at `positions` alone: the weights of those that hold it
        leave no mean."""
        ...

    def watches(self, round_number: int, block_number: int) -> bool:
        """Whether a round looks at the tensor's block of this number (0, 1, ...): a sample may do. Block 0 must be watched."""
        ...

    def likely(self, round_number: int) -> bool:
        """Whether a round is to be reckoned with: not one that is there in case an earlier one fails."""
        ...

    def needs(self, round_number: int, known: Array | None) -> bool:
        """Whether a round has anything to add to what is known of a tensor (or of the model) by then."""
        ...

    def observe(self, round_number: int, inputs: Inputs) -> Array:
        """What one block adds to a counting round (0, 1, ...): an int64 array of counts, or a float64 array of partial sums.

        Its shape depends on `inputs.positions` only; counts may have a row per source up to the last position, so that tensors with
        different holders add up. Counts are added, sums are added with `math.fsum`, so the total depends on no order and no cutting.
        `inputs.known` is what the round before led to."""
        ...

    def summarize(self, round_number: int, total: Array, known: Array | None) -> Array:
        """What is known after a round, from its `total` and from what was known before: handed to the next round and to `merge`."""
        ...

    def merge(self, inputs: Inputs) -> Tensor:
        """The merged piece, in the shape of the inputs, in the compute dtype (float32; float64 for float64 tensors) or already rounded to
        that of the first input. Pure: the same inputs give the same bits, on any worker."""
        ...


class Method:
    """What most methods share: elementwise, no base, no statistics, no counting rounds, files of the first source."""

    granularity: ClassVar[Granularity] = Granularity.ELEMENT
    base: ClassVar[Need] = Need.NO
    statistic: ClassVar[Statistic | None] = None
    pooled: ClassVar[bool] = False
    copies_equal: ClassVar[bool] = True
    on_device: ClassVar[bool] = False

    @property
    def rounds(self) -> int:
        """No counting rounds."""
        return 0

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """Every source counts the same."""
        return ("equal part",) * len(source_names)

    def files_from(self, source_names: Sequence[str]) -> str | None:
        """The base where the method requires one, else the first source."""
        return None if self.base is Need.REQUIRED else source_names[0]

    def check_statistics(
        self, name: str, shape: tuple[int, ...], found: Sequence[tuple[int, ...] | None], sources: Sequence[str] = ()
    ) -> None:
        """Nothing was asked for."""

    def check_holders(self, name: str, positions: Sequence[int]) -> None:
        """Any of the sources will do."""

    def watches(self, round_number: int, block_number: int) -> bool:
        """Every block."""
        return True

    def likely(self, round_number: int) -> bool:
        """Every round."""
        return True

    def needs(self, round_number: int, known: Array | None) -> bool:
        """Every round."""
        return True

    def observe(self, round_number: int, inputs: Inputs) -> Array:
        """A method with counting rounds has its own."""
        raise RuntimeError(f"{type(self).__name__} has no counting round {round_number}")

    def summarize(self, round_number: int, total: Array, known: Array | None) -> Array:
        """A method with counting rounds has its own."""
        raise RuntimeError(f"{type(self).__name__} has no counting round {round_number}")
