"""A run's files in the object store, `runs/<NAME>/…`: another machine goes on with the journal, and reports, of this one."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pipeline.objects.attempt import AT_ONCE, put
from pipeline.objects.bucket import open_bucket

EVERY_SECONDS = 10.0
GROWING = ".jsonl"
"""How the names of files end to which lines are added, on whatever machine the run goes on."""


class RunFiles:
    """What a run directory holds of its own (its links lead into the store), and how it was last put there."""

    def __init__(self, uri: str, directory: Path) -> None:
        self.bucket = open_bucket(uri)
        self.directory = directory
        self.seen: dict[str, tuple[int, int]] = {}
        self.pushed = time.monotonic()

    @property
    def prefix(self) -> str:
        """Where they lie."""
        return f"runs/{self.directory.name}"

    def bring(self) -> None:
        """Bring what this machine has not: all of it on a new one, nothing where the run was begun here and went on nowhere else.

        Where it went on elsewhere, a file to which lines are added is longer there: it is brought with those beside it, which speak of it.
        """
        there = {name: (self._path(name), size) for name, size in self.bucket.sizes(self.prefix).items()}
        behind = {
            path.parent for path, size in there.values() if path.name.endswith(GROWING) and path.exists() and path.stat().st_size < size
        }
        names = [name for name, (path, _) in there.items() if path.parent in behind or not path.exists()]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: self.bucket.download(name, self._path(name)), names))

    def push(self) -> None:
        """Put what has changed there."""
        found = self._files()
        changed = {path: stamp for path, stamp in found.items() if self.seen.get(path) != stamp}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._put, changed))
        self.seen |= changed
        self.pushed = time.monotonic()

    def push_at_times(self) -> None:
        """The same, if it has not been done for a while."""
        if time.monotonic() - self.pushed > EVERY_SECONDS:
            self.push()

    def _put(self, name: str) -> None:
        """One file as it is at this moment: a journal grows."""
        with suppress(FileNotFoundError):  # removed meanwhile
            put(self.bucket, self.directory / name, f"{self.prefix}/{name}")

    def _path(self, name: str) -> Path:
        return self.directory / name.removeprefix(f"{self.prefix}/")

    def _files(self) -> dict[str, tuple[int, int]]:
        found = {}
        for place, _, names in os.walk(self.directory):
            for path in (Path(place, name) for name in names if not name.startswith(".")):
                if not path.is_symlink() and path.is_file():
                    status = path.stat()
                    found[path.relative_to(self.directory).as_posix()] = (status.st_size, status.st_mtime_ns)
        return found
