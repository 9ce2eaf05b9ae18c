"""Output files settle while they are being written: their bytes are hashed, and pressed to disk, close behind the workers.

Work items lie in the order of the output files, so when items 0..k are done, a known stretch from the front of the files is final. Threads
hash that stretch (each file's SHA-256 must go from front to back, but several files go side by side) while later items are still being
merged, and another tells the kernel to write it out, so that little of either is left to do at the end.
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from mergers.engine.layout import OutputFile, WorkItem

READ_BYTES = 1 << 20
SYNC_BYTES = 256 << 20
HASHERS = 4


class Settling:
    """Follows the writing of `files` in `directory`: `written(item index)` after each item, `digests()` at the end."""

    def __init__(self, directory: Path, files: Sequence[OutputFile], items: Sequence[WorkItem]) -> None:
        self.directory = directory
        self.files = files
        self.ends = ends_of(files, items)
        self.done: set[int] = set()
        self.front = 0
        self.settled: dict[str, int] = {}
        self.hashes: dict[str, str] = {}
        self.errors: list[BaseException] = []
        self.stopped = False
        self.changed = threading.Condition()
        self.unhashed = deque(files)
        works = [*(self.hash_files for _ in range(min(HASHERS, len(files)))), self.sync_files]
        self.threads = [threading.Thread(target=self.guarded, args=(work,), daemon=True) for work in works]

    def __enter__(self) -> "Settling":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        for thread in self.threads:
            thread.join()

    def written(self, index: int) -> None:
        """Note that a work item is on its way to disk."""
        with self.changed:
            self.done.add(index)
            while self.front in self.done:
                self.done.remove(self.front)
                self.settled |= self.ends[self.front]
                self.front += 1
            if self.front == len(self.ends):
                self.settled |= {file.name: file.nbytes for file in self.files}
            self.changed.notify_all()

    def digests(self) -> dict[str, str]:
        """File name -> SHA-256 of all files, when everything has been written."""
        if not self.ends:
            with self.changed:
                self.settled |= {file.name: file.nbytes for file in self.files}
                self.changed.notify_all()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]
        return self.hashes

    def guarded(self, work: Callable[[], None]) -> None:
        """Run one of the followers; what it raises is raised again by `digests`."""
        try:
            work()
        except BaseException as error:  # it must not vanish with the thread
            self.errors.append(error)

    def await_more(self, file: OutputFile, position: int) -> int:
        """How far a file is final, once that is beyond `position`; `position` itself if the work has been stopped."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or self.settled.get(file.name, 0) > position)
            return position if self.stopped else self.settled[file.name]

    def hash_files(self) -> None:
        """Hash files, one after another, until none is left that nobody hashes."""
        while self.unhashed:
            try:
                file = self.unhashed.popleft()
            except IndexError:
                return  # another thread was quicker
            digest = self.hash_file(file)
            if digest is None:
                return
            self.hashes[file.name] = digest

    def hash_file(self, file: OutputFile) -> str | None:
        """A file's SHA-256, None if the work was stopped. It is opened anew for each stretch: another machine may have written that."""
        state, position, buffer = hashlib.sha256(), 0, memoryview(bytearray(READ_BYTES))
        while position < file.nbytes:
            end = self.await_more(file, position)
            if end == position:
                return None
            with open(self.directory / file.name, "rb", buffering=0) as handle:
                handle.seek(position)
                while position < end:
                    count = handle.readinto(buffer[: min(READ_BYTES, end - position)])
                    state.update(buffer[:count])
                    position += count
        return state.hexdigest()

    def sync_files(self) -> None:
        """Have every file written out to disk, a stretch at a time."""
        for file in self.files:
            position = 0
            while position < file.nbytes:
                end = self.await_more(file, min(position + SYNC_BYTES, file.nbytes) - 1)
                if self.stopped:
                    return
                descriptor = os.open(self.directory / file.name, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                position = end


def ends_of(files: Sequence[OutputFile], items: Sequence[WorkItem]) -> list[dict[str, int]]:
    """For each work item: how far each file it touches is final once it and all before it are done."""
    order = {file.name: number for number, file in enumerate(files)}
    result, behind = [], 0
    for item in items:
        ends = {
            piece.output.path: piece.output.start + (piece.start + piece.count) * (piece.nbytes // piece.count)
            for piece in item.pieces
            if piece.output is not None
        }
        last = max((order[name] for name in ends), default=behind)
        result.append({**{file.name: file.nbytes for file in files[behind:last]}, **ends})
        behind = last
    return result
