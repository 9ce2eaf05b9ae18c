"""What `doctor` has done on each node: small files written, read, replaced and locked in a directory, or objects.

An examiner lives in one process of its node. Where it finds nothing of the directory, it says so; it never makes the directory itself.
"""

import time
from pathlib import Path

from filelock import FileLock, Timeout

from foundation.files import write_atomic
from pipeline.doctor import objects
from pipeline.doctor.facts import Facts, gather, secure_token

PAUSE_SECONDS = 0.05
WHOLE = (b"a" * 65536, b"b" * 65536)
"""The two contents that a file changes between while it is replaced over and over."""
SWAPPED = "swapped"


class Examiner:
    """One node's part: `name` is the node's, `directory` the one that all write to."""

    def __init__(self, name: str, workspace: str, directory: str) -> None:
        self.name = name
        self.workspace = Path(workspace)
        self.directory = Path(directory)
        self.lock = FileLock(self.directory / "lock", thread_local=False)  # whichever thread takes it

    def facts(self, own: bool = False) -> Facts:
        """Versions, room, token, GPUs. `own`: the workspace is this node's alone, and may be yet to be made."""
        return gather(self.workspace, own)

    def now(self) -> float:
        """This node's clock, in seconds since 1970."""
        return time.time()

    def secure(self) -> bool:
        """Make the token file this user's own; whether anything had to be done."""
        return secure_token()

    def write(self) -> bool:
        """Leave a file with this node's name in it; False where the directory is not seen."""
        if not self.directory.is_dir():
            return False
        write_atomic(self._signed(self.name), self.name)
        return True

    def unseen(self, names: list[str], seconds: float) -> list[str]:
        """Those of `names` whose files are not here, whole, within so many seconds: a network file system may show them late."""
        deadline = time.monotonic() + seconds
        while missing := [name for name in names if not self._sees(name)]:
            if time.monotonic() > deadline:
                break
            time.sleep(PAUSE_SECONDS)
        return missing

    def swap(self, seconds: float) -> bool:
        """Replace a file by renaming, with one content and the other in turn, once and for so many seconds; False where that fails."""
        deadline, turn = time.monotonic() + seconds, 0
        try:
            while turn == 0 or time.monotonic() < deadline:
                temporary = self.directory / f".{SWAPPED}.tmp"
                temporary.write_bytes(WHOLE[turn % 2])
                temporary.replace(self.directory / SWAPPED)
                turn += 1
        except OSError:
            return False
        return True

    def watch(self, seconds: float) -> tuple[int, int]:
        """How often that file was read within so many seconds, and how often it was neither content, or not there."""
        deadline, reads, broken = time.monotonic() + seconds, 0, 0
        while time.monotonic() < deadline:
            reads += 1
            try:
                broken += (self.directory / SWAPPED).read_bytes() not in WHOLE
            except FileNotFoundError:
                broken += 1
        return reads, broken

    def hold(self) -> bool:
        """Take the lock, which is free."""
        return self._takes()

    def refused(self) -> bool:
        """Whether the lock cannot be had now, because another holds it."""
        if self._takes():
            self.lock.release()
            return False
        return True

    def release(self) -> None:
        self.lock.release()

    def try_store(self, uri: str, place: str) -> objects.Told:
        """Everything that this node can try of an object store by itself."""
        return objects.try_store(uri, place, self.name)

    def store_unseen(self, uri: str, place: str, names: list[str]) -> list[str]:
        """Those whose objects are not read or not listed here, now."""
        return objects.unseen(uri, place, names)

    def store_race(self, uri: str, place: str) -> bool:
        """Whether this node, of all that try, was the one to make an object."""
        return objects.race(uri, place, self.name)

    def store_clear(self, uri: str, place: str) -> str:
        """Remove what was tried with; what went wrong."""
        return objects.clear(uri, place)

    def _takes(self) -> bool:
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def _signed(self, name: str) -> Path:
        return self.directory / f"of {name}"

    def _sees(self, name: str) -> bool:
        try:
            return self._signed(name).read_text() == name
        except OSError:
            return False
