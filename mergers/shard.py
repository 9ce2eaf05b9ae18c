"""What a worker does: read byte ranges of every source, merge them block by block, write its own byte ranges of the output.

`merge_shard` is stateless, picklable by name and safe to run twice or beside others: it writes only the bytes of its item, and only into
files that exist already. Memory: a few blocks, whatever the size of the model.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import InputError, ResourceError
from mergers.header import FLOATS, ITEM_BYTES
from mergers.layout import Action, Piece, Region, WorkItem
from mergers.merger import Granularity, Inputs, Merger

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class ItemOutcome:
    """What a work item reports: tensors that were computed (not copied), bytes moved, and non-finite values as (tensor, where) -> count."""

    nbytes: int
    computed: set[str] = field(default_factory=set)
    bytes_read: int = 0
    bytes_written: int = 0
    nonfinite: Counter[tuple[str, str]] = field(default_factory=Counter)


def merge_shard(item: WorkItem, directory: str) -> ItemOutcome:
    """Carry out one work item, writing into the output files that lie ready in `directory`.

    Raises InputError for tensors that had to be the same in all sources and are not, ResourceError for a full disk.
    """
    outcome = ItemOutcome(item.nbytes)
    keep_freed_memory()
    with one_torch_thread(), disk_errors(directory):
        files = Files(directory)
        try:
            for piece in item.pieces:
                merge_piece(item, piece, files, outcome)
        finally:
            files.close()
    outcome.bytes_read, outcome.bytes_written = files.bytes_read, files.bytes_written
    return outcome


def merge_piece(item: WorkItem, piece: Piece, files: Files, outcome: ItemOutcome) -> None:
    """Read, merge and write one piece, a block at a time."""
    regions = piece.inputs + ((piece.base,) if piece.base else ())
    for start in range(piece.start, piece.start + piece.count, piece.block):
        count = min(piece.block, piece.start + piece.count - start)
        raw = [files.read(slot, region, start, count) for slot, region in enumerate(regions)]
        if all(region.dtype == regions[0].dtype and same_bytes(raw[0], other) for region, other in zip(regions[1:], raw[1:], strict=True)):
            result = typed(raw[0], regions[0].dtype)
        elif piece.action is Action.MERGE:
            outcome.computed.add(piece.tensor)
            result = merge_block(item.merger, piece, start, [typed(data, region.dtype) for data, region in zip(raw, regions, strict=True)])
        else:
            raise InputError(unequal(item, piece))
        if piece.output is None:
            continue
        if not item.allow_nonfinite and piece.output.dtype in FLOATS and not is_finite(result):
            inputs = {
                f"source '{item.sources[position]}'": typed(raw[slot], piece.inputs[slot].dtype)
                for slot, position in enumerate(piece.positions)
            }
            outcome.nonfinite.update(count_nonfinite(piece, result, inputs))
        files.write(piece.output, start, result)


def merge_block(merger: Merger, piece: Piece, start: int, tensors: list[Tensor]) -> Tensor:
    """One call of the merger, its result rounded to the output's dtype: the only cast."""
    if merger.granularity is Granularity.TENSOR:
        tensors = [tensor.view(piece.shape) for tensor in tensors]
    elif merger.granularity is Granularity.ROW:
        tensors = [tensor.view(-1, *piece.shape[1:]) if piece.shape else tensor for tensor in tensors]
    base = tensors.pop() if piece.base else None
    assert piece.output is not None
    result = merger.merge(Inputs(piece.tensor, start, tuple(tensors), piece.positions, base))
    if result.shape != tensors[0].shape:
        raise ValueError(
            f"{type(merger).__name__}.merge gave shape {tuple(result.shape)} for {tuple(tensors[0].shape)} of '{piece.tensor}'"
        )
    return result.to(torch_dtype(piece.output.dtype)).contiguous().view(-1)


def unequal(item: WorkItem, piece: Piece) -> str:
    """The sentence for tensors that had to be equal and are not."""
    if piece.action is Action.PROVE_TIED:
        return (
            f"source '{item.sources[piece.positions[0]]}': the config ties the output head to the embedding, but '{piece.tensor}' on disk "
            "differs from it; "
            "set tie_word_embeddings to false in config.json if the head is meant to be its own, else remove it from the checkpoint"
        )
    names = ", ".join(f"'{item.sources[position]}'" for position in piece.positions)
    return (
        f"tensor '{piece.tensor}' ({piece.inputs[0].dtype}) differs between {names}; tensors of this dtype are not averaged but copied, "
        "so they must be the "
        "same in all sources"
    )


def typed(data: Tensor, dtype: str) -> Tensor:
    """Raw bytes seen as elements of `dtype`."""
    return data.view(torch_dtype(dtype)) if dtype in FLOATS else data


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of a float dtype's safetensors name."""
    import torch

    return {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]


def same_bytes(first: Tensor, second: Tensor) -> bool:
    """Whether two byte tensors of one length are equal, eight bytes at a time (a quarter of the time of torch.equal)."""
    left, right = first.numpy(), second.numpy()
    words = len(left) // 8 * 8
    return bool((left[words:] == right[words:]).all() and (left[:words].view("i8") == right[:words].view("i8")).all())


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite: both pass through a minimum and maximum, which cost a tenth of testing each element."""
    import torch

    low, high = torch.aminmax(tensor)
    return math.isfinite(low.item()) and math.isfinite(high.item())


def count_nonfinite(piece: Piece, result: Tensor, inputs: dict[str, Tensor]) -> Counter[tuple[str, str]]:
    """How many values are not finite in each source of a block; if in none, how many the output's dtype could not hold."""
    counts = {where: int((~data.isfinite()).sum()) for where, data in inputs.items()}
    found = Counter({(piece.tensor, where): count for where, count in counts.items() if count})
    assert piece.output is not None
    return found or Counter({(piece.tensor, f"the result as {piece.output.dtype}"): int((~result.isfinite()).sum())})


class Files:
    """The open files of one work item, and a reused buffer per source."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.descriptors: dict[tuple[str, int], int] = {}
        self.buffers: dict[int, Tensor] = {}
        self.bytes_read = 0
        self.bytes_written = 0

    def read(self, slot: int, region: Region, start: int, count: int) -> Tensor:
        """The bytes of elements [start, start + count) of a tensor, in the buffer of `slot`: valid until that slot's next read."""
        import torch

        width = ITEM_BYTES[region.dtype]
        size = count * width
        if slot not in self.buffers or len(self.buffers[slot]) < size:
            self.buffers[slot] = torch.empty(size, dtype=torch.uint8)
        data = self.buffers[slot][:size]
        view = memoryview(data.numpy())  # type: ignore[arg-type]
        done = 0
        while done < size:
            step = os.preadv(self.descriptor(region.path, os.O_RDONLY), [view[done:]], region.start + start * width + done)
            if step == 0:
                raise InputError(f"{region.path} ended early: it has become shorter since the merge was planned; run the merge again")
            done += step
        self.bytes_read += size
        return data

    def write(self, region: Region, start: int, data: Tensor) -> None:
        """Write elements from `start` on at their place in the output."""
        import torch

        view = memoryview(data.view(torch.uint8).numpy())  # type: ignore[arg-type]
        position = region.start + start * ITEM_BYTES[region.dtype]
        done = 0
        while done < len(view):
            done += os.pwrite(self.descriptor(os.path.join(self.directory, region.path), os.O_WRONLY), view[done:], position + done)
        self.bytes_written += len(view)

    def descriptor(self, path: str, flags: int) -> int:
        """The open file `path`; opened at first use, never created."""
        key = (path, flags)
        if key not in self.descriptors:
            self.descriptors[key] = os.open(path, flags)
        return self.descriptors[key]

    def close(self) -> None:
        """Close all files."""
        for descriptor in self.descriptors.values():
            os.close(descriptor)


@cache
def keep_freed_memory() -> None:
    """Let this process keep freed blocks instead of giving each back to the kernel, where the C library (glibc) has such a setting.

    A merge allocates and frees the same few megabytes over and over; fetching them anew each time costs more than the arithmetic.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        mallopt(trim_threshold, 128 << 20)
        mallopt(mmap_threshold, 32 << 20)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let torch use one thread: work is spread over items, and small blocks are slower with more."""
    import torch

    before = torch.get_num_threads()
    if before != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if before != 1:
            torch.set_num_threads(before)


@contextmanager
def disk_errors(directory: str | Path) -> Iterator[None]:
    """Turn a full disk, quota or file size limit into a ResourceError."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise ResourceError(
            f"writing to {directory} failed: {error.strerror}; free space there, or choose another output, and run again"
        ) from error
