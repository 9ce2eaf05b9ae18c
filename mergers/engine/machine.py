"""What the machine is told while a merge is under way: one thread for torch, memory that is kept, and what a full disk means."""

from __future__ import annotations

import ctypes
import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from foundation.errors import ResourceError

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
