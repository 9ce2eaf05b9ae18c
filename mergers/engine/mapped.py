"""Bytes in and out without files in between: sources are read where they are mapped into memory, results go into tensors in memory.

The counterpart of `transfer.py` for merging the same sources again and again (`live.py`): the same reader, but that plain tensors are seen
in place, and the same writer, but that it writes into `result`. What is mapped is the page cache itself, so all processes of a machine
that map a file share its one copy in memory.
"""

from __future__ import annotations

import mmap
import os
import threading
from typing import TYPE_CHECKING

import numpy as np

from foundation.errors import InputError
from mergers.checkpoints.header import ITEM_BYTES, TensorEntry
from mergers.engine.layout import Region
from mergers.engine.transfer import Files

if TYPE_CHECKING:
    from mergers.merger import Array


class Maps:
    """Whole files mapped into memory, each at first use, and proof that they are still what they were.

    A file that is replaced by rename goes on being seen as it was; one that is cut short while it is being read ends the process (SIGBUS),
    so weights must not be written over in place while they are mapped.
    """

    def __init__(self) -> None:
        self.states: dict[str, tuple[int, ...] | None] = {}
        self.mapped: dict[str, Array] = {}
        self.lock = threading.Lock()

    def bytes_of(self, path: str) -> Array:
        """A file's bytes, uint8. Writing to them changes a private copy, but nobody does."""
        with self.lock:
            if path not in self.mapped:
                with open(path, "rb") as file:
                    view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch warns of memory it could not write to
                self.states[path] = state_of(path)
                self.mapped[path] = np.frombuffer(view, dtype=np.uint8)
            return self.mapped[path]

    def slice(self, path: str, start: int, size: int) -> Array:
        """Bytes [start, start + size) of a file; InputError if it is shorter."""
        data = self.bytes_of(path)
        if start + size > len(data):
            raise InputError(f"{path} ended early: it has become shorter since its header was read; run the merge again")
        return data[start : start + size]

    def check(self) -> None:
        """Raise InputError if a file is no longer the one that was opened."""
        changed = next((path for path, state in self.states.items() if state_of(path) != state), None)
        if changed is not None:
            raise InputError(f"{changed} has changed since it was opened for merging in memory; open the sources again")


def state_of(path: str) -> tuple[int, ...] | None:
    """What changes when a file is replaced or written to; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class MappedFiles(Files):
    """Reads from `maps`, writes into `result`, the bytes of the tensor that is being made. One per thread; the maps are shared."""

    def __init__(self, maps: Maps) -> None:
        super().__init__("")
        self.maps = maps
        self.result: Array | None = None

    def run(self, slot: object, entry: TensorEntry, start: int, count: int) -> Array:
        """The bytes of a run of elements in place; copied where they are not aligned to their elements."""
        width = ITEM_BYTES[entry.dtype]
        position = entry.start + start * width
        if position % width:
            return super().run(slot, entry, start, count)
        self.bytes_read += count * width
        return self.maps.slice(entry.path, position, count * width)

    def fill(self, data: Array, path: str, position: int) -> None:
        """Copy len(data) bytes from `position` of a file."""
        data[:] = self.maps.slice(path, position, len(data))
        self.bytes_read += len(data)

    def write(self, region: Region, start: int, data: Array) -> None:
        """Put elements from `start` on at their place in the result."""
        assert self.result is not None
        data, position = data.view(np.uint8), start * ITEM_BYTES[region.dtype]
        self.result[position : position + len(data)] = data
        self.bytes_written += len(data)
