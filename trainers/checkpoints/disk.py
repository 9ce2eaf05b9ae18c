"""What a full disk means to the user: which bytes were to be written where, how many are free, and that what was there before still is."""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from foundation.errors import ResourceError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WORDS = ("No space left on device", "Disk quota exceeded", "File too large", "file write failed", "unexpected pos")
"""How the writers that are not Python say it: safetensors, and torch's zip writer."""


@contextmanager
def room_for(size: int, directory: Path, what: str, tidy: Callable[[], None] | None = None) -> Iterator[None]:
    """Refuse at once where `directory` has not `size` bytes free, and tell of a disk that fills up within as a ResourceError.

    `tidy` is then called, to give back the room of what is half-written.
    """
    check_room(size, directory, what)
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not is_full(error):
            raise
        if tidy:
            tidy()
        raise ResourceError(f"{_full(size, directory, what, shutil.disk_usage(directory).free)} ({str(error).strip()[:200]})") from error


def check_room(size: int, directory: Path, what: str) -> None:
    """ResourceError where `directory`, made if need be, has not `size` bytes free."""
    directory.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < size:
        raise ResourceError(_full(size, directory, what, free))


def is_full(error: BaseException | None) -> bool:
    """Whether a disk, a quota or a limit on file sizes is behind `error`."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in FULL) or any(words in str(error) for words in WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _full(size: int, directory: Path, what: str, free: int) -> str:
    return (
        f"no room to write {what} to {directory}: it needs {size:,} bytes, {free:,} are free; make room and run again: "
        "what was written before is intact, and the work goes on from there"
    )
