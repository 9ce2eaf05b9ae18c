"""What a running step has taken up, and where what it makes is put: handed to its workers, so that they do on their nodes what it did here.

Only where nodes share an object store and nothing else. A worker on the step's own node finds everything there and loses no time.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.objects.attempt import Attempt, Held, is_small, put
from pipeline.objects.mirror import Mirror
from pipeline.record_file import Record
from pipeline.store import Store

PARTS = "parts"


@dataclass
class Presence:
    """A step's inputs and its attempt. Picklable."""

    store: Store
    key: str
    taken: dict[tuple[str, bool], Record] = field(default_factory=dict)

    @property
    def mirror(self) -> Mirror:
        """The object store behind the store."""
        assert self.store.mirror is not None
        return self.store.mirror

    @property
    def directory(self) -> Path:
        """The step's own directory, on whatever node."""
        return self.store.root / self.key

    @property
    def attempt(self) -> Attempt:
        """Where what it makes is put."""
        return self.mirror.attempt(self.key)

    def arrive(self) -> None:
        """Have every input on this node that the step has taken up by now, and room for what it makes: no scratch of finished steps."""
        (self.directory / "work").mkdir(parents=True, exist_ok=True)
        self.mirror.tidy_here(self.key)
        for (_, whole), record in self.taken.items():
            self.store.take_up(record, whole)

    def gather(self, there: Mapping[str, Held]) -> None:
        """Bring here what workers on other nodes tell of their work: history and use of their machines."""
        told = {name: asdict(each) for name, each in there.items() if is_small(name)}
        self.mirror.bring(self.key, {"attempt": self.attempt.name, "objects": told}, small=True)


_CURRENT: ContextVar[Presence | None] = ContextVar("presence", default=None)


def presence() -> Presence | None:
    """That of the step that is running here; None where all nodes share the store."""
    return _CURRENT.get()


@contextmanager
def present(found: Presence | None) -> Iterator[None]:
    """Within, `presence()` gives `found`."""
    token = _CURRENT.set(found)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@dataclass(frozen=True)
class DeliverFile:
    """Puts a file of the step's output into the object store and keeps it on this node, where the next step may look for it."""

    attempt: Attempt
    directory: Path
    below: str

    def __call__(self, path: Path, digest: str) -> None:
        """Deliver `path`, whose SHA-256 is known, under its own name."""
        self.attempt.upload(path, f"{self.below}/{path.name}", digest)
        (self.directory / self.below).mkdir(parents=True, exist_ok=True)
        os.replace(path, self.directory / self.below / path.name)


@dataclass(frozen=True)
class Parts:
    """Parts of a step's work, in the object store until the step is done: made on any node, put together on one."""

    presence: Presence

    def put(self, path: Path) -> None:
        """Put a part there."""
        put(self.presence.mirror.bucket, path, self._name(path))

    def bring(self, path: Path) -> None:
        """Bring a part here."""
        self.presence.mirror.bucket.download(self._name(path), path)

    def found(self, paths: list[Path]) -> list[Path]:
        """Which of these an earlier attempt has left there."""
        there = self.presence.mirror.bucket.sizes(f"store/{self.presence.key}/work/{PARTS}")
        return [path for path in paths if self._name(path) in there]

    def _name(self, path: Path) -> str:
        return f"store/{self.presence.key}/work/{PARTS}/{path.name}"


def held_files(digests: Mapping[str, str], sizes: Mapping[str, int], below: str) -> dict[str, Held]:
    """What workers have delivered, by name in the step's directory."""
    return {f"{below}/{name}": Held(sizes[name], digests[name]) for name in sizes}
