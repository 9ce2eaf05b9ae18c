"""A safetensors file written as another one is laid out: the same header, names, dtypes and offsets, the tensors' bytes anew or copied.

The layout is known before the first byte, so the file takes its room on the disk at once (a full disk is told before work), tensors are
rounded a few at a time while others are written, and the digest is taken on the way: nothing is read again, and no second copy of the model
is ever held. The bytes do not depend on the number of threads.
"""

import errno
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from foundation.errors import InputError

FLOATS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""The dtypes that float32 holds exactly, so that a frozen weight comes back bit for bit."""

DTYPES = FLOATS | {
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
THREADS = 2
AHEAD = 2 * THREADS
PIECE = 64 * 2**20
"""Bytes that are copied at once."""

Result = TypeVar("Result")
Content = Callable[[int], bytes | memoryview]
"""Gives bytes; is handed the open file to copy from."""


@dataclass(frozen=True)
class Place:
    """Where one tensor lies: its dtype as safetensors calls it, its shape, and its bytes, counted from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Layout:
    """What the header of the file at `path` says. `places` go by their offset."""

    path: Path
    header: bytes
    places: Mapping[str, Place]

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return max([len(self.header), *(place.end for place in self.places.values())])


def read_layout(path: Path) -> Layout:
    """The layout of a safetensors file, from its header alone; InputError where it has none."""
    with open(path, "rb") as file:
        length = file.read(8)
        header = length + file.read(min(int.from_bytes(length, "little"), path.stat().st_size))
    try:
        entries = json.loads(header[8:])
        first = len(header)
        found = {
            name: Place(entry["dtype"], tuple(entry["shape"]), first + entry["data_offsets"][0], first + entry["data_offsets"][1])
            for name, entry in entries.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: its header is no safetensors header; copy the checkpoint again") from error
    return Layout(path, header, dict(sorted(found.items(), key=lambda entry: entry[1].begin)))


def write_like(layout: Layout, path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write `path` as `layout` says, each tensor rounded once to its dtype there, what `tensors` lack copied; gives the file's SHA-256.

    Shapes are those of the layout. On disk when it returns. Raises OSError where the disk is full, as a rule before anything is written.
    """
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        take_room(descriptor, layout.size)
        with open(layout.path, "rb") as source, ThreadPoolExecutor(THREADS) as threads:

            def put(offset: int, content: Content) -> memoryview:
                data = memoryview(content(source.fileno()))
                write_all(descriptor, data, offset)
                return data

            for written in in_order(threads, put, contents(layout, tensors)):
                digest.update(written)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def contents(layout: Layout, tensors: Mapping[str, torch.Tensor]) -> Iterator[tuple[int, Content]]:
    """The whole file from its first byte: offsets, and how to get the bytes that belong there."""
    yield 0, lambda source: layout.header
    for name, place in layout.places.items():
        if name in tensors:
            yield place.begin, partial(rounded, tensors[name], DTYPES[place.dtype])
        else:
            for offset in range(place.begin, place.end, PIECE):
                yield offset, partial(read_at, offset, min(PIECE, place.end - offset))


def rounded(tensor: torch.Tensor, dtype: torch.dtype, source: int) -> memoryview:
    """The tensor's bytes in `dtype`."""
    flat = tensor.detach().to(dtype).cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def read_at(offset: int, count: int, source: int) -> bytes:
    """`count` bytes of the open file `source`."""
    return os.pread(source, count, offset)


def take_room(descriptor: int, size: int) -> None:
    """Have the file system set `size` bytes aside, where it can: later writes cannot fail for want of room, and are faster."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except AttributeError:  # a system without that call
        os.truncate(descriptor, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def write_all(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset`; the system may take less at once."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def in_order(threads: Executor, work: Callable[..., Result], items: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
    """`work(*item)` for each item, in order, a few of them at the same time and never many waiting."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        if len(waiting) == AHEAD:
            yield waiting.popleft().result()
        waiting.append(threads.submit(work, *item))
    while waiting:
        yield waiting.popleft().result()
