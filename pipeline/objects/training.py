"""What the first worker of a stage does on its node where nodes share an object store alone.

It brings what the stage takes up and what an interrupted attempt has left, puts each whole checkpoint there, and at the end what was made.

    store/<key>/work/checkpoints/checkpoint-N/…   the newest whole checkpoint, its manifest last
    store/<key>/work/checkpoints/milestone-N.json says of a milestone that it is whole, after its files
    store/<key>/work/beside/…                     what lies beside `work/`: milestones, the history so far
"""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import InputError, MergelineError
from pipeline.objects.attempt import Held, is_small, uploaded
from pipeline.objects.bucket import Bucket
from pipeline.objects.presence import Presence
from trainers.checkpoints.milestones import milestone_manifest
from trainers.checkpoints.resume import MANIFEST, checkpoints, step_of

BESIDE, HISTORY = "beside/", "history.jsonl"


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
        for name in self._to_go_on_from(there):
            path = self._path(name)
            if not path.exists() or path.stat().st_size != there[name]:
                self._bucket.download(f"{self._prefix}{name}", path)

    @contextmanager
    def saving(self) -> Iterator[Callable[[Path], None]]:
        """Gives what puts a whole checkpoint or milestone there, beside the work: what comes while one is on its way takes its turn, and of
        checkpoints only the newest. At the end what is not there yet is given up, for the stage is done or goes on from an earlier one."""
        waiting: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        ended = threading.Event()

        def put() -> None:
            while (place := waiting.get()) is not None:
                with suppress(MergelineError, OSError):  # a store that is away now may have the next one
                    self._put_saved(place, ended)

        thread = threading.Thread(target=put, daemon=True, name="checkpoints to the object store")
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
            kept = f"{self._relative(place)}/"
            stale = [name for name in self._there() if name.startswith("checkpoints/checkpoint-") and not name.startswith(kept)]
            self._bucket.remove(f"{self._prefix}{name}" for name in stale)
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

    def _to_go_on_from(self, there: Mapping[str, int]) -> list[str]:
        """What of the files there is needed here: of checkpoints the newest, unless this node has a newer one; manifests come last."""
        whole = [Path(name).parent for name in there if name.startswith("checkpoints/checkpoint-") and name.endswith(f"/{MANIFEST}")]
        newest = max(whole, key=step_of, default=None)
        here = [path for path in checkpoints(self.work) if (path / MANIFEST).exists()]
        if newest is not None and here and step_of(here[-1]) >= step_of(newest):
            newest = None
        taken = [name for name in there if newest is not None and name.startswith(f"{newest.as_posix()}/")]
        others = [name for name in there if name.startswith((BESIDE, "checkpoints/milestone-")) and not self._is_further(name, there[name])]
        return sorted([*taken, *others], key=lambda name: (name.endswith(".json"), name))

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
        uploaded(self._bucket, path, self._prefix + self._relative(path))

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
