"""Where every byte of the output goes, and how the work is cut: files, work items, pieces, blocks.

All of it follows from the plan alone. A block (a fixed number of elements) is what one computation sees; a piece is a run of blocks of one
tensor; a work item is pieces worth about 64 MiB of output, all items alike to within a block. The number of workers appears nowhere, so
it cannot change a byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import ceil, prod
from typing import TYPE_CHECKING

from mergers.checkpoints.header import ITEM_BYTES, TensorEntry, build_header
from mergers.merger import Granularity, Merger

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array

BLOCK_ELEMENTS = 1 << 18
"""Elements per computation: small enough to stay in a core's cache, and part of the algorithm: never derived from the machine."""
ITEM_OUTPUT_BYTES = 64 << 20
MAX_SHARD_SIZE = 5_000_000_000


class Action(Enum):
    """What is done with a tensor."""

    MERGE = "merge"
    COPY = "copy"
    """Bytes must be the same in all sources."""
    PROVE_TIED = "prove tied"
    """Nothing is written: a tied head's bytes must be those of its embedding."""


@dataclass(frozen=True)
class TensorPlan:
    """One tensor of the output and what it is made from; `positions[i]` is the source that `entries[i]` lies in, `statistics[i]` what was
    measured on it (empty where the method needs nothing)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    action: Action
    merger: Merger
    positions: tuple[int, ...]
    entries: tuple[TensorEntry, ...]
    base: TensorEntry | None = None
    statistics: tuple[TensorEntry | None, ...] = ()

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the output."""
        return self.elements * ITEM_BYTES[self.dtype]

    @property
    def reads(self) -> tuple[TensorEntry, ...]:
        """Everything on disk that is read for it."""
        return tuple(entry for entry in (*self.entries, self.base, *self.statistics) if entry is not None)


@dataclass(frozen=True)
class OutputFile:
    """One weight file of the output: its header's bytes, each tensor's first byte in it, and its full size."""

    name: str
    header: bytes
    starts: Mapping[str, int]
    nbytes: int


@dataclass(frozen=True)
class Region:
    """Where a tensor is written: from byte `start` of the file `path`, which is relative to the output directory."""

    path: str
    start: int
    dtype: str


@dataclass(frozen=True)
class Piece:
    """A run of blocks of one tensor: elements [start, start + count), computed `block` elements at a time.

    `key` says with what its counting rounds are added up: the tensor, or a pool of tensors.
    """

    tensor: TensorPlan
    key: str
    start: int
    count: int
    block: int
    output: Region | None

    @property
    def blocks(self) -> Iterator[tuple[int, int]]:
        """(first element, number of elements) of each block."""
        end = self.start + self.count
        return ((start, min(self.block, end - start)) for start in range(self.start, end, self.block))

    @property
    def nbytes(self) -> int:
        """Bytes written."""
        return self.count * ITEM_BYTES[self.output.dtype] if self.output else 0

    @property
    def bytes_read(self) -> int:
        """Bytes read, but for what is read whole beside it (a Gram matrix, an adapter's factors)."""
        return sum(self.count * ITEM_BYTES[entry.dtype] for entry in (*self.tensor.entries, self.tensor.base) if entry)

    def bytes_of_round(self, round_number: int) -> int:
        """Bytes read in a counting round, 0 if its method has no such round."""
        merger = self.tensor.merger
        if self.tensor.action is not Action.MERGE or round_number >= merger.rounds:
            return 0
        elements = sum(count for start, count in self.blocks if merger.watches(round_number, start // self.block))
        return elements * self.bytes_read // max(1, self.count)


@dataclass(frozen=True)
class WorkItem:
    """What one call of `merge_shard` does: independent of all others, safe to run twice. Picklable and small.

    `known` holds what the counting rounds have led to, by key, as far as this item needs it.
    """

    index: int
    sources: tuple[str, ...]
    pieces: tuple[Piece, ...]
    allow_nonfinite: bool
    known: Mapping[str, Array] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes written."""
        return sum(piece.nbytes for piece in self.pieces)


def lay_out_files(tensors: Sequence[TensorPlan], max_shard_size: int) -> tuple[OutputFile, ...]:
    """Assign tensors to files in order of name, each file at most `max_shard_size` bytes of tensors unless a single tensor is larger.

    Within a file wider dtypes come first, so that every tensor is aligned to its element size; then by name.
    """
    groups: list[list[TensorPlan]] = [[]]
    size = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        if groups[-1] and size + tensor.nbytes > max_shard_size:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.nbytes
    files = []
    for number, group in enumerate(groups, start=1):
        name = "model.safetensors" if len(groups) == 1 else f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        ordered = sorted(group, key=lambda tensor: (-ITEM_BYTES[tensor.dtype], tensor.name))
        header, starts = build_header((tensor.name, tensor.dtype, tensor.shape) for tensor in ordered)
        files.append(OutputFile(name, header, starts, len(header) + sum(tensor.nbytes for tensor in group)))
    return tuple(files)


def cut_items(
    tensors: Sequence[TensorPlan], files: Sequence[OutputFile], sources: tuple[str, ...], allow_nonfinite: bool, item_bytes: int
) -> tuple[WorkItem, ...]:
    """The work in items of about `item_bytes` each, in the order of the output files (of the first source's, without files)."""
    places = {name: (file.name, start) for file in files for name, start in file.starts.items()}

    def place_of(tensor: TensorPlan) -> tuple[str, int]:
        return places.get(tensor.name, ("", 0)) if files else (tensor.entries[0].path, tensor.entries[0].start)

    ordered = sorted(tensors, key=place_of)
    total = sum(tensor.nbytes for tensor in ordered)
    wanted = max(1, ceil(total / item_bytes))
    share = total / wanted
    pools = Pools()
    items: list[WorkItem] = []
    pieces: list[Piece] = []
    done = 0
    for tensor in ordered:
        block = block_elements(tensor.merger.granularity, tensor.shape)
        width = ITEM_BYTES[tensor.dtype]
        start = 0
        while start < tensor.elements:
            room = share * (len(items) + 1) - done
            count = min(tensor.elements - start, max(1, round(room / (block * width))) * block)
            place = places.get(tensor.name)
            output = Region(place[0], place[1], tensor.dtype) if place else None
            pieces.append(Piece(tensor, pools.key(tensor), start, count, block, output))
            start += count
            done += count * width
            if len(items) + 1 < wanted and done >= share * (len(items) + 1) - block * width / 2:
                items.append(WorkItem(len(items), sources, tuple(pieces), allow_nonfinite))
                pieces = []
    if pieces:
        items.append(WorkItem(len(items), sources, tuple(pieces), allow_nonfinite))
    return tuple(items)


def bytes_counted(items: Sequence[WorkItem]) -> int:
    """Bytes that the counting rounds read, those that are to be reckoned with."""
    pieces = [piece for item in items for piece in item.pieces]
    rounds = range(max((piece.tensor.merger.rounds for piece in pieces), default=0))
    return sum(piece.bytes_of_round(number) for number in rounds for piece in pieces if piece.tensor.merger.likely(number))


class Pools:
    """Names for what is counted together: each tensor by itself, or all tensors that one pooled merger merges."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}

    def key(self, tensor: TensorPlan) -> str:
        """The key of a tensor's counting rounds."""
        if not tensor.merger.pooled:
            return tensor.name
        return f"pool {self.numbers.setdefault(id(tensor.merger), len(self.numbers))}"


def block_elements(granularity: Granularity, shape: tuple[int, ...]) -> int:
    """Elements per computation: whole rows or the whole tensor where the method asks for them."""
    if granularity is Granularity.TENSOR:
        return max(1, prod(shape))
    if granularity is Granularity.ROW:
        row = row_elements(shape)
        return row * max(1, BLOCK_ELEMENTS // row)
    return BLOCK_ELEMENTS


def row_elements(shape: tuple[int, ...]) -> int:
    """Elements of a row of the matrix [shape[0], all else]; a vector or scalar is one row."""
    return max(1, prod(shape[1:] if len(shape) > 1 else shape))


def shaped(piece: Tensor, granularity: Granularity, shape: tuple[int, ...]) -> Tensor:
    """A flat piece of a tensor of `shape`, in the form that the granularity promises to `merge`."""
    if granularity is Granularity.TENSOR:
        return piece.view(shape)
    return piece.view(-1, row_elements(shape)) if granularity is Granularity.ROW else piece
