"""Bytes in and out: reading runs of elements of tensors on disk into reused buffers, writing runs of elements at their place in the output.

Reads are `preadv` into a buffer per slot, writes are `pwrite` at known offsets, so a worker's memory is a few blocks whatever the size of
the model, and nobody's bytes pass through anybody else.
"""

from __future__ import annotations

import os
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from foundation.errors import InputError
from mergers.checkpoints.header import ITEM_BYTES, LowRank, TensorEntry
from mergers.engine.arrays import aligned, as_array, as_tensor, typed
from mergers.engine.layout import Region

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mergers.merger import Array


class Files:
    """The open files of one work item, a reused buffer per slot, and the device that computes."""

    def __init__(self, directory: str, device: str = "cpu") -> None:
        self.directory = directory
        self.device = device
        self.descriptors: dict[tuple[str, int], int] = {}
        self.buffers: dict[object, Array] = {}
        self.kept: dict[TensorEntry, Tensor] = {}
        self.factors: dict[LowRank, tuple[Tensor, Tensor]] = {}
        self.bytes_read = 0
        self.bytes_written = 0

    def read(self, slot: object, entry: TensorEntry, start: int, count: int) -> Array:
        """Elements [start, start + count) of a tensor, flat, in its dtype on disk (bytes for dtypes that are not floats; float32 or float64
        where an adapter is added). Valid until the slot's next read."""
        if not entry.rows and not entry.added:
            return typed(self.run(slot, entry, start, count), entry.dtype)
        values = self.rows(slot, entry, start, count) if entry.rows else as_tensor(typed(self.run(slot, entry, start, count), entry.dtype))
        for low_rank in entry.added:
            values = values.to(wider(values.dtype)) + self.low_rank(low_rank, entry.shape, start, count)
        return as_array(values)

    def whole(self, entry: TensorEntry) -> Tensor:
        """A whole tensor in its own shape and memory, kept until `forget_whole`: for what is small, or measured."""
        if entry not in self.kept:
            self.kept[entry] = as_tensor(self.read("whole", entry, 0, entry.elements)).clone().view(entry.shape)
        return self.kept[entry]

    def forget_whole(self) -> None:
        """Let go of what was read whole, when the tensor that it belongs to is done."""
        self.kept.clear()
        self.factors.clear()
        self.buffers.pop("whole", None)

    def run(self, slot: object, entry: TensorEntry, start: int, count: int) -> Array:
        """The bytes of a run of elements as they lie on disk."""
        width = ITEM_BYTES[entry.dtype]
        data = self.buffer(slot, count * width)
        self.fill(data, entry.path, entry.start + start * width)
        return data

    def rows(self, slot: object, entry: TensorEntry, start: int, count: int) -> Tensor:
        """A run of elements of a tensor that is put together from rows of others, run of rows by run of rows: in its dtype, or in a wider
        one where the parts have several or adapters on them."""
        assert entry.rows is not None
        width, row = ITEM_BYTES[entry.dtype], prod(entry.shape[1:])
        first, last = start // row, -(-(start + count) // row)
        data = self.buffer(slot, (last - first) * row * width)
        values, done = as_tensor(typed(data, entry.dtype)), 0
        plain = entry.rows.plain(entry.dtype)
        if not plain:
            values = values.to(wider(values.dtype))
        for part, number, rows in entry.rows.runs(first, last):
            target = slice(done * row, (done + rows) * row)
            if part is None:
                values[target] = 0
            elif plain:
                self.fill(data[target.start * width : target.stop * width], part.path, part.start + number * row * width)
            else:
                values[target] = as_tensor(self.read((slot, "part"), part, number * row, rows * row))
            done += rows
        return values[start - first * row : start - first * row + count]

    def low_rank(self, matrix: LowRank, shape: tuple[int, ...], start: int, count: int) -> Tensor:
        """A run of elements of scale * up @ down, float32."""
        if matrix not in self.factors:
            self.factors[matrix] = (self.whole(matrix.up).float(), self.whole(matrix.down).float())
        up, down = self.factors[matrix]
        columns = shape[1]
        first, last = start // columns, -(-(start + count) // columns)
        rows = down[:, first:last].T @ up.T if matrix.transposed else up[first:last] @ down
        skipped = start - first * columns
        return rows.mul_(matrix.scale).reshape(-1)[skipped : skipped + count]

    def buffer(self, slot: object, size: int) -> Array:
        """`size` bytes of memory that the slot keeps, pinned where a device is to fetch from it."""
        if slot not in self.buffers or len(self.buffers[slot]) < size:
            self.buffers[slot] = aligned(size) if self.device == "cpu" else pinned(size)
        return self.buffers[slot][:size]

    def fill(self, data: Array, path: str, position: int) -> None:
        """Read len(data) bytes from `position` of a file."""
        view = data.data
        done = 0
        while done < len(view):
            step = os.preadv(self.descriptor(path, os.O_RDONLY), [view[done:]], position + done)
            if step == 0:
                raise InputError(f"{path} ended early: it has become shorter since the merge was planned; run the merge again")
            done += step
        self.bytes_read += len(view)

    def write(self, region: Region, start: int, data: Array) -> None:
        """Write elements from `start` on at their place in the output."""
        view = data.view(np.uint8).data
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


def pinned(size: int) -> Array:
    """Memory for `size` bytes that a device can fetch from by itself."""
    import torch

    memory: Array = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    return memory


def wider(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32."""
    import torch

    return dtype if dtype == torch.float64 else torch.float32
