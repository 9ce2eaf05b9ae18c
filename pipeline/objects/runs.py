"""A run's small files in the object store, `runs/<NAME>/…`: another machine goes on with the journal, and reports, of this one."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.objects.bucket import open_bucket

EVERY_SECONDS = 10.0
LARGEST_BYTES = 256 << 20
AT_ONCE = 4


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
        """Bring what this machine has not: all of it on a new one, nothing where the run was begun here."""
        there = self.bucket.sizes(self.prefix)
        names = [name for name in there if not self._path(name).exists()]
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
        try:
            content = (self.directory / name).read_bytes()
        except FileNotFoundError:
            return
        self.bucket.write(f"{self.prefix}/{name}", content)

    def _path(self, name: str) -> Path:
        return self.directory / name.removeprefix(f"{self.prefix}/")

    def _files(self) -> dict[str, tuple[int, int]]:
        found = {}
        for place, _, names in os.walk(self.directory):
            for path in (Path(place, name) for name in names if not name.startswith(".")):
                if not path.is_symlink() and path.is_file() and (status := path.stat()).st_size <= LARGEST_BYTES:
                    found[path.relative_to(self.directory).as_posix()] = (status.st_size, status.st_mtime_ns)
        return found
