"""Fetches image files for the writing and checks them: by their header, or decoded whole. Several at a time, given back in order.

A header tells that a file is an image and how large; that its pixels are cut short only decoding tells.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from tasks.arrow.drafts import Draft, Lack
from tasks.files.images import decode, file_status, opened
from tasks.files.problems import Kind, Unusable

AHEAD = 32
"""Rows whose images are fetched ahead of the writing; no more are held."""

LARGEST_FILE = 256 << 20
"""Bytes of an image file; the largest picture that is decoded is smaller, uncompressed."""

Fetched = tuple[Draft, tuple[bytes, ...] | Lack] | Lack
"""A row with its images or with what is wrong with the first bad one, or what the annotations lack."""


def lacking_image(root: str, draft: Draft) -> Lack | None:
    """The first image of a row that is not there, by asking the file system alone."""
    try:
        for name in draft.images:
            file_status(root, name)
    except Unusable as error:
        return Lack(error.kind, error.detail)
    return None


def fetch_all(root: str, rows: Iterable[Draft | Lack], whole: bool) -> Iterator[Fetched]:
    """Every row with its images, in order; at most AHEAD rows are on their way."""

    def settled(draft: Draft | Lack, future: "Future[tuple[bytes, ...] | Lack] | None") -> Fetched:
        if isinstance(draft, Lack):
            return draft
        assert future is not None
        return draft, future.result()

    waiting: deque[tuple[Draft | Lack, Future[tuple[bytes, ...] | Lack] | None]] = deque()
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for row in rows:
            waiting.append((row, pool.submit(fetch_row, root, row, whole) if isinstance(row, Draft) else None))
            if len(waiting) >= AHEAD:
                yield settled(*waiting.popleft())
        while waiting:
            yield settled(*waiting.popleft())


def fetch_row(root: str, draft: Draft, whole: bool) -> tuple[bytes, ...] | Lack:
    """The encoded images of a row, or what is wrong with the first bad one."""
    try:
        return tuple(fetch(root, name, whole) for name in draft.images)
    except Unusable as error:
        return Lack(error.kind, error.detail)


def fetch(root: str, name: str, whole: bool) -> bytes:
    """The bytes of an image file, checked. Raises Unusable."""
    path, status = file_status(root, name)
    if status.st_size > LARGEST_FILE:
        raise Unusable(Kind.TOO_LARGE, f"{name!r} ({status.st_size:,} bytes)")
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise Unusable(Kind.UNREADABLE, f"{name!r} ({error.strerror})") from error
    if whole:
        decode(BytesIO(content), repr(name))
    else:
        with opened(BytesIO(content), repr(name)):
            pass
    return content
