"""What a worker does with a work item: show its blocks to the method in a counting round, or merge them and write its bytes of the output.

`observe_shard` and `merge_shard` are stateless, picklable by name and safe to run twice or beside others: a merge writes only the bytes of
its item, and only into files that exist already. Memory: a few blocks, whatever the size of the model.
"""

from __future__ import annotations

import ctypes
import errno
import math
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import InputError, ResourceError
from mergers.checkpoints.header import FLOATS, TensorEntry
from mergers.engine.layout import Action, Piece, WorkItem, shaped
from mergers.engine.transfer import Files, torch_dtype
from mergers.merger import Inputs

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mergers.engine.rounds import Tally

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Nonfinite = Counter[tuple[str, str]]
"""(tensor, where) -> how many values are NaN or infinite there."""


@dataclass
class ItemOutcome:
    """What a work item reports: bytes moved, what its counting round has found by key, tensors that were computed (not copied), and values
    that are not finite."""

    index: int
    bytes_read: int = 0
    bytes_written: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    nonfinite: Nonfinite = field(default_factory=Counter)


def observe_shard(item: WorkItem, round_number: int, device: str = "cpu") -> ItemOutcome:
    """Show every block of a work item to its method in one counting round. Raises nothing for the data's sake: what is not finite is
    reported."""
    from mergers.engine.rounds import Tally

    with working(item, "", device) as (files, outcome):
        for piece in item.pieces:
            merger = piece.tensor.merger
            tally = outcome.tallies.setdefault(piece.key, Tally())
            for start, count in piece.blocks:
                if not merger.watches(round_number, start // piece.block):
                    continue
                values = read_block(piece, files, start, count)
                first_look = not any(merger.watches(earlier, start // piece.block) for earlier in range(round_number))
                if first_look and not item.allow_nonfinite:
                    outcome.nonfinite.update(count_nonfinite(item, piece, values))
                tally.add(merger.observe(round_number, inputs_of(item, piece, files, start, values)))
            files.forget_whole()
    return outcome


def merge_shard(item: WorkItem, directory: str, device: str = "cpu") -> ItemOutcome:
    """Merge every block of a work item and write it into the output files that lie ready in `directory`.

    Raises InputError for tensors that had to be the same in all sources and are not, ResourceError for a full disk.
    """
    with working(item, directory, device) as (files, outcome):
        for piece in item.pieces:
            for start, count in piece.blocks:
                merge_block(item, piece, files, outcome, start, count)
            files.forget_whole()
    return outcome


def merge_block(item: WorkItem, piece: Piece, files: Files, outcome: ItemOutcome, start: int, count: int) -> None:
    """Read, merge and write one block; what is the same in all sources (and the base) is copied, where the method allows it."""
    values = read_block(piece, files, start, count)
    equal = all(same_bytes(values[0], other) for other in values[1:])
    if equal and (piece.tensor.action is not Action.MERGE or piece.tensor.merger.copies_equal):
        result = values[0]
    elif piece.tensor.action is Action.MERGE:
        result = piece.tensor.merger.merge(inputs_of(item, piece, files, start, values))
        if result.numel() != count:
            raise ValueError(f"{piece.tensor.merger} gave {tuple(result.shape)} for {count} elements of '{piece.tensor.name}'")
        result = result.reshape(-1)
        if not equal or not same_bytes(values[0], result.to(values[0].dtype).cpu()):
            outcome.computed.add(piece.tensor.name)
    else:
        raise InputError(unequal(item, piece))
    if piece.output is None:
        return
    if any(entry.added or entry.dtype != piece.output.dtype for entry in piece.tensor.entries):
        outcome.computed.add(piece.tensor.name)
    if piece.output.dtype in FLOATS:
        result = result.to(torch_dtype(piece.output.dtype))
        if not item.allow_nonfinite and not is_finite(result):
            found = count_nonfinite(item, piece, values)
            outcome.nonfinite.update(found or {(piece.tensor.name, f"the result as {piece.output.dtype}"): int((~result.isfinite()).sum())})
    files.write(piece.output, start, result.cpu())


def read_block(piece: Piece, files: Files, start: int, count: int) -> list[Tensor]:
    """The block of every source that holds the tensor, then that of the base if there is one; flat."""
    entries = (*piece.tensor.entries, *((piece.tensor.base,) if piece.tensor.base else ()))
    return [files.read(slot, entry, start, count) for slot, entry in enumerate(entries)]


def inputs_of(item: WorkItem, piece: Piece, files: Files, start: int, values: list[Tensor]) -> Inputs:
    """What the method sees of a block, on the device that computes."""
    tensor, merger = piece.tensor, piece.tensor.merger
    if files.device != "cpu":
        values = [value.to(files.device, non_blocking=True) for value in values]
    pieces = [shaped(value, merger.granularity, tensor.shape) for value in values]
    base = pieces.pop() if tensor.base else None
    statistics = tuple(
        None if entry is None else measured(piece, files, slot, entry, start, len(values[0]))
        for slot, entry in enumerate(tensor.statistics)
    )
    names = tuple(item.sources[position] for position in tensor.positions)
    known = item.known.get(piece.key)
    return Inputs(tensor.name, start, tuple(pieces), tensor.positions, base, names, tensor.elements, statistics, known)


def measured(piece: Piece, files: Files, slot: int, entry: TensorEntry, start: int, count: int) -> Tensor:
    """One source's statistic: the same range as the weights, or the whole of it."""
    statistic = piece.tensor.merger.statistic
    if statistic is not None and statistic.per_element:
        values = files.read(("statistic", slot), entry, start, count)
        return shaped(values.to(files.device), piece.tensor.merger.granularity, piece.tensor.shape)
    return files.whole(entry).to(files.device)


def unequal(item: WorkItem, piece: Piece) -> str:
    """The sentence for tensors that had to be equal and are not."""
    tensor = piece.tensor
    if tensor.action is Action.PROVE_TIED:
        return (
            f"source '{item.sources[tensor.positions[0]]}': the config ties the output head to the embedding, but '{tensor.name}' on disk "
            "differs from it; set tie_word_embeddings to false in config.json if the head is meant to be its own, else remove it from the "
            "checkpoint"
        )
    names = ", ".join(f"'{item.sources[position]}'" for position in tensor.positions)
    return (
        f"tensor '{tensor.name}' ({tensor.dtype}) differs between {names}; tensors of this dtype are not averaged but copied, so they must "
        "be the same in all sources"
    )


def same_bytes(first: Tensor, second: Tensor) -> bool:
    """Whether two flat tensors have one dtype and the same bytes, eight at a time; a look at the first few settles most cases."""
    import torch

    if first.dtype != second.dtype:
        return False
    left, right = first.view(torch.uint8).numpy(), second.view(torch.uint8).numpy()
    if (left[:64] != right[:64]).any():
        return False
    words = len(left) // 8 * 8
    return bool((left[words:] == right[words:]).all() and (left[:words].view("i8") == right[:words].view("i8")).all())


def is_finite(tensor: Tensor) -> bool:
    """Whether no element of a flat tensor is NaN or infinite, told by the largest bit patterns: those of NaN and infinity lie above all
    others, seen as signed integers where the sign is +, as unsigned ones where it is -. Two looks cost less than one at the values."""
    signed, infinity, sign = infinity_of(tensor.dtype)
    bits = tensor.cpu().view(signed).numpy()
    return not len(bits) or bool(bits.max() < infinity and bits.view(f"u{bits.itemsize}").max() < sign + infinity)


@cache
def infinity_of(dtype: torch.dtype) -> tuple[torch.dtype, int, int]:
    """Of a float dtype: the signed integers of its size, and the bits of infinity and of the sign."""
    import torch

    signed = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    return signed, int(torch.tensor(math.inf, dtype=dtype).view(signed)), 1 << 8 * dtype.itemsize - 1


def count_nonfinite(item: WorkItem, piece: Piece, values: list[Tensor]) -> Nonfinite:
    """How many values are not finite in each source of a block, and in the base."""
    where = [f"source '{item.sources[position]}'" for position in piece.tensor.positions] + ["the base"]
    broken = ((place, value) for place, value in zip(where, values, strict=False) if not is_finite(value))
    return Counter({(piece.tensor.name, place): int((~value.isfinite()).sum()) for place, value in broken})


@contextmanager
def working(item: WorkItem, directory: str, device: str) -> Iterator[tuple[Files, ItemOutcome]]:
    """Open files and an outcome for a work item; the outcome's bytes are entered at the end."""
    files, outcome = Files(directory, device), ItemOutcome(item.index)
    keep_freed_memory()
    with one_torch_thread(), disk_errors(directory, item.nbytes):
        try:
            yield files, outcome
        finally:
            files.close()
    outcome.bytes_read, outcome.bytes_written = files.bytes_read, files.bytes_written


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
def disk_errors(directory: str | Path, nbytes: int) -> Iterator[None]:
    """Turn a full disk, quota or file size limit into a ResourceError that says how many bytes are written here, and how many are free."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise ResourceError(
            f"writing {nbytes:,} bytes to {directory} failed: {error.strerror}, {shutil.disk_usage(directory).free:,} bytes are free; free "
            "space there, or choose another output, and run again"
        ) from error
