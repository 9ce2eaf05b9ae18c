"""What the first worker of a stage does on its node where nodes share an object store alone.

It brings what the stage takes up and what an interrupted attempt has left, puts each whole checkpoint there, and at the end what was made.

    store/<key>/work/checkpoints/checkpoint-N/…   the newest whole checkpoint, its manifest last
    store/<key>/work/checkpoints/milestone-N.json says of a milestone that it is whole, after its files
    store/<key>/work/beside/…                     what lies beside `work/`: milestones, the history so far
"""

import queue
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import InputError, MergelineError
from pipeline.objects.attempt import Held, is_small, put
from pipeline.objects.bucket import Bucket, remove_halves
from pipeline.objects.presence import Presence
from trainers.checkpoints.milestones import milestone_manifest
from trainers.checkpoints.resume import MANIFEST, checkpoints, is_whole, step_of

BESIDE, HISTORY = "beside/", "history.jsonl"
CHECKPOINT, MILESTONE = "checkpoints/checkpoint-", "checkpoints/milestone-"


@dataclass(frozen=True)
class StageFiles:
    """The files of a stage, on the node of its workers. Picklable."""

    presence: Presence
    work: Path
    """Where the trainer keeps its checkpoints: below the step's scratch directory."""

    def arrive(self) -> None:
        """Have on this node what the stage takes up, and what an interrupted attempt got to."""
        self.presence.arrive()
        there = self._there()
        self._bring(
            {name: size for name, size in there.items() if name.startswith((BESIDE, MILESTONE)) and not self._is_further(name, size)}
        )
        newest = self._newest(there)
        if newest is None:
            return
        place = self._path(newest.as_posix())
        shutil.rmtree(place, ignore_errors=True)  # half of it, or damaged
        files = {name: size for name, size in there.items() if _place(name) == newest}
        self._bring(files)
        if not is_whole(place):  # damaged there: nobody is to go on from it
            self._bucket.remove(f"{self._prefix}{name}" for name in files)

    @contextmanager
    def saving(self) -> Iterator[Callable[[Path], None]]:
        """Gives what puts a whole checkpoint or milestone there, beside the work: what comes while one is on its way takes its turn, and of
        checkpoints only the newest. At the end what is not there yet is given up, for the stage is done or goes on from an earlier one."""
        waiting: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        ended = threading.Event()

        def put_all() -> None:
            while (place := waiting.get()) is not None:
                with suppress(MergelineError, OSError):  # a store that is away now may have the next one
                    self._put_saved(place, ended)

        thread = threading.Thread(target=put_all, daemon=True, name="checkpoints to the object store")
        thread.start()
        try:
            yield waiting.put
        finally:
            ended.set()
            waiting.put(None)
            thread.join()

    def _put_saved(self, place: Path, ended: threading.Event) -> None:
        if place.parent == self.work:
            newest = checkpoints(self.work)[-1:]
            if newest != [place] and newest and (newest[0] / MANIFEST).exists():
                return
            self._put_all(place, MANIFEST, ended)
            stale = [name for name in self._there() if name.startswith(CHECKPOINT) and step_of(_place(name)) < step_of(place)]
            self._bucket.remove(f"{self._prefix}{name}" for name in stale)  # a newer one is of a successor's, who took this for gone
        else:
            self._put_all(place, "", ended)
            self._put(milestone_manifest(self.work, int(place.name.rsplit("-", 1)[1])))
        history = self._directory / HISTORY
        if history.exists():
            self._put(history)

    def deliver(self, digests: Mapping[str, str]) -> dict[str, Held]:
        """Put what the stage has made there, and what this node alone knows of its course; by its name in the step's directory.

        `digests`: SHA-256 of the files of its checkpoint.
        """
        found = {path.relative_to(self._directory).as_posix(): path for path in sorted(self._directory.rglob("*")) if path.is_file()}
        told = {name: path for name, path in found.items() if is_small(name) and (name == HISTORY or name.startswith("usage-"))}
        made = {name: path for name, path in found.items() if name.startswith("checkpoint-step-")}
        output = {f"checkpoint/{name}": self._directory / "checkpoint" / name for name in digests}
        known = {f"checkpoint/{name}": digest for name, digest in digests.items()}
        return self.presence.attempt.upload_all({**told, **made, **output}, known)

    def _newest(self, there: Mapping[str, int]) -> Path | None:
        """The newest whole checkpoint there; None without one, or where this node has one as new."""
        whole = [_place(name) for name in there if name.startswith(CHECKPOINT) and _says_whole(name)]
        newest = max(whole, key=step_of, default=None)
        if newest is None or any(step_of(path) >= step_of(newest) and is_whole(path) for path in checkpoints(self.work)):
            return None
        return newest

    def _bring(self, files: Mapping[str, int]) -> None:
        """Have these files (name -> bytes) here, those that say of others that they are all there after these."""
        for name in sorted(files, key=lambda name: (_says_whole(name), name)):
            path = self._path(name)
            remove_halves(path)
            if not path.exists() or path.stat().st_size != files[name]:
                self._bucket.download(f"{self._prefix}{name}", path)

    def _is_further(self, name: str, size: int) -> bool:
        """Whether this node has more of a file that grows."""
        path = self._path(name)
        return name == BESIDE + HISTORY and path.exists() and path.stat().st_size > size

    def _there(self) -> dict[str, int]:
        return {name.removeprefix(self._prefix): size for name, size in self._bucket.sizes(self._prefix).items()}

    def _put_all(self, place: Path, last: str, ended: threading.Event) -> None:
        """Every file below `place`, the one called `last` after all others; InputError where it is given up."""
        files = sorted((path for path in place.rglob("*") if path.is_file()), key=lambda path: path.name == last)
        for path in files:
            if ended.is_set():
                raise InputError(f"{place} is not put there: its stage has ended")
            self._put(path)

    def _put(self, path: Path) -> None:
        put(self._bucket, path, self._prefix + self._relative(path))

    def _relative(self, path: Path) -> str:
        scratch = self._directory / "work"
        inside = path.is_relative_to(scratch)
        return path.relative_to(scratch).as_posix() if inside else BESIDE + path.relative_to(self._directory).as_posix()

    def _path(self, name: str) -> Path:
        return self._directory / name.removeprefix(BESIDE) if name.startswith(BESIDE) else self._directory / "work" / name

    @property
    def _prefix(self) -> str:
        return f"store/{self.presence.key}/work/"

    @property
    def _directory(self) -> Path:
        return self.presence.directory

    @property
    def _bucket(self) -> Bucket:
        return self.presence.mirror.bucket


def _place(name: str) -> Path:
    """The checkpoint that a file is of, both by their names there: `checkpoints/checkpoint-N`."""
    return Path(*Path(name).parts[:2])


def _says_whole(name: str) -> bool:
    """Whether a file says of others that they are all there, so that it comes after them."""
    return name.startswith(MILESTONE) or (name.startswith(CHECKPOINT) and Path(name).name == MANIFEST)
