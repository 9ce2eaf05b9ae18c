"""Where every byte of the output goes, and how the work is cut: files, work items, pieces, blocks.

All of it follows from the plan alone. A block (a fixed number of elements) is what one computation sees; a piece is a run of blocks of one
tensor; a work item is pieces worth about 64 MiB of output. The number of workers appears nowhere, so it cannot change a byte.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod

from mergers.header import ITEM_BYTES, TensorEntry, build_header
from mergers.merger import Granularity, Merger

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
    """One tensor of the output and what it is made from; `positions[i]` is the source that `entries[i]` lies in."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    action: Action
    positions: tuple[int, ...]
    entries: tuple[TensorEntry, ...]
    base: TensorEntry | None = None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the output."""
        return self.elements * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class OutputFile:
    """One weight file of the output: its header's bytes, each tensor's first byte in it, and its full size."""

    name: str
    header: bytes
    starts: Mapping[str, int]
    nbytes: int


@dataclass(frozen=True)
class Region:
    """A tensor's bytes: from byte `start` of the file `path` (for outputs: relative to the output directory)."""

    path: str
    start: int
    dtype: str


@dataclass(frozen=True)
class Piece:
    """A run of blocks of one tensor: elements [start, start + count), computed `block` elements at a time."""

    tensor: str
    action: Action
    shape: tuple[int, ...]
    start: int
    count: int
    block: int
    positions: tuple[int, ...]
    inputs: tuple[Region, ...]
    base: Region | None
    output: Region | None

    @property
    def nbytes(self) -> int:
        """Bytes written."""
        return self.count * ITEM_BYTES[self.output.dtype] if self.output else 0


@dataclass(frozen=True)
class WorkItem:
    """What one call of `merge_shard` does: independent of all others, safe to run twice. Picklable and small."""

    index: int
    merger: Merger
    sources: tuple[str, ...]
    pieces: tuple[Piece, ...]
    allow_nonfinite: bool

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


def cut_pieces(
    tensors: Sequence[TensorPlan], files: Sequence[OutputFile], granularity: Granularity, item_bytes: int
) -> Iterator[tuple[Piece, ...]]:
    """The pieces of each work item: runs of whole blocks in file order, about `item_bytes` of output each, never less than a block."""
    places = {name: (file.name, start) for file in files for name, start in file.starts.items()}
    current: list[Piece] = []
    room = item_bytes
    for tensor in sorted(tensors, key=lambda tensor: places.get(tensor.name, ("", 0))):
        block = block_elements(granularity, tensor.shape)
        block_bytes = max(1, block * ITEM_BYTES[tensor.dtype])
        start = 0
        while start < tensor.elements:
            count = min(tensor.elements - start, max(1, room // block_bytes) * block)
            current.append(piece_of(tensor, places.get(tensor.name), start, count, block))
            start += count
            room -= count * ITEM_BYTES[tensor.dtype]
            if room < block_bytes:
                yield tuple(current)
                current, room = [], item_bytes
    if current:
        yield tuple(current)


def block_elements(granularity: Granularity, shape: tuple[int, ...]) -> int:
    """Elements per computation: whole rows or the whole tensor where the method asks for them."""
    if granularity is Granularity.TENSOR:
        return max(1, prod(shape))
    if granularity is Granularity.ROW:
        row = max(1, prod(shape[1:]))
        return row * max(1, BLOCK_ELEMENTS // row)
    return BLOCK_ELEMENTS


def piece_of(tensor: TensorPlan, place: tuple[str, int] | None, start: int, count: int, block: int) -> Piece:
    """One piece of a tensor."""
    inputs = tuple(region_of(entry) for entry in tensor.entries)
    base = region_of(tensor.base) if tensor.base else None
    output = Region(place[0], place[1], tensor.dtype) if place else None
    return Piece(tensor.name, tensor.action, tensor.shape, start, count, block, tensor.positions, inputs, base, output)


def region_of(entry: TensorEntry) -> Region:
    """Where a tensor on disk lies."""
    return Region(entry.path, entry.start, entry.dtype)
