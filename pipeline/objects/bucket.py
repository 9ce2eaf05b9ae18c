"""A prefix in an object store, by URI (`s3://`, `gs://`, `az://`): whole objects, and writes that happen only on a condition.

An object store has no rename and no lock of its own. What it has is that an object appears whole or not at all, and (S3, GCS and Azure
alike) a write that is refused where something is there already, or where it is not what it was. The rest is built on these two.

Credentials come from each node's environment or machine role (`AWS_…`, `GOOGLE_…`, `AZURE_…`), never from the URI, a file or an argument.
"""

import glob
import hashlib
import os
import re
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from foundation.errors import ConfigError, InputError
from foundation.files import fsync_path
from pipeline.objects.asking import Asking, asking

SCHEMES = ("s3", "gs", "az")
PART_BYTES = 8 << 20
PARTS = 9_000
"""An object may have 10,000 parts at most: those of a file larger than 72 GB are larger."""
PIECE_BYTES, PIECES = 16 << 20, 6
"""Read at a time from a large object, and how many of these at the same time."""
CONFLICTS = 5
"""A conditional write is tried again so often where the store refuses it although its condition holds: two came at the same time."""


@dataclass(frozen=True)
class Object:
    """A small object's content, and the tag that a write can be bound to."""

    content: bytes
    tag: str


@dataclass(frozen=True)
class Bucket:
    """A prefix in an object store. Picklable: each process opens its own connection.

    Names are relative, with `/` between their parts. A store that does not answer is asked again for a while (`asking.py`); then,
    and where it refuses, every method raises ResourceError. `patience`: seconds for this, if not the usual ones.
    """

    uri: str

    def read(self, name: str, patience: float | None = None) -> Object | None:
        """A small object, or None where there is none."""

        def get(store: Any) -> Object:
            found = store.get(name)
            return Object(bytes(found.bytes()), _tag(found.meta))

        try:
            return self._asking.small(f"read {name}", get, patience)
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> str:
        """Write a small object, whatever was there; gives its tag."""
        return _tag(self._asking.small(f"write {name}", lambda store: store.put(name, content)))

    def create(self, name: str, content: bytes, patience: float | None = None) -> str | None:
        """Write a small object where there is none; gives its tag, or None where there is one.

        Where an answer was lost, what is there is compared with `content`: it must be unlike anything that another process writes there.
        """
        return self._on_condition(f"create {name}", name, content, None, patience)

    def replace(self, name: str, content: bytes, tag: str, patience: float | None = None) -> str | None:
        """Write a small object in place of the one with `tag`; gives its new tag, or None where that is no longer what is there.

        `content`: as for `create`.
        """
        return self._on_condition(f"replace {name}", name, content, tag, patience)

    def upload(self, path: Path, name: str) -> None:
        """Write a file as one object, in parts where it is large; it is there when all of it is."""
        part = max(PART_BYTES, -(-path.stat().st_size // PARTS))
        with open(path, "rb"):  # what is wrong with the file is not told as the store's fault
            self._asking.large(f"write {name}", lambda store: store.put(name, path, chunk_size=part))

    def download(self, name: str, path: Path, sha256: str | None = None) -> None:
        """Bring an object to `path`, whole or not at all. InputError where it is gone, or its bytes are not those of `sha256`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{_half(path)}{uuid.uuid4().hex[:8]}.tmp")
        state = hashlib.sha256()
        try:
            with open(temporary, "wb") as file:
                for piece in self._pieces(name):
                    file.write(piece)
                    state.update(piece)
                file.flush()
                os.fsync(file.fileno())
            if sha256 is not None and state.hexdigest() != sha256:
                raise InputError(f"{self.uri}/{name} is damaged: its SHA-256 is {state.hexdigest()}, its record says {sha256}")
            os.replace(temporary, path)
            fsync_path(path.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Name -> bytes of every object below the directories of `prefix`, sorted by name; without those that stand for folders."""
        place = prefix.rstrip("/")

        def listed(store: Any) -> dict[str, int]:
            return {meta["path"]: meta["size"] for chunk in store.list(place or None) for meta in chunk}

        found = self._asking.large(f"list {prefix or 'all'}", listed)
        folders = {place, *(name[: mark.start()] for name in found for mark in re.finditer("/", name))}
        return {name: found[name] for name in sorted(found) if found[name] or name not in folders}

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there do not matter."""
        gone = list(names)
        try:
            if gone:
                self._asking.large(f"remove {_shown(gone)}", lambda store: store.delete(gone))
        except FileNotFoundError:  # stores that remove one by one stop at the first that is not there
            if len(gone) > 1:
                for name in gone:
                    self.remove([name])

    @property
    def _asking(self) -> Asking:
        return asking(self.uri)

    def _on_condition(self, what: str, name: str, content: bytes, tag: str | None, patience: float | None) -> str | None:
        """A write that the store refuses unless nothing is there (`tag` None) or what is there has this tag.

        Refused is not enough to know: an earlier try may have been written and its answer lost.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if tag is None else _version(tag)
        tries = 0

        def put(store: Any) -> str:
            nonlocal tries
            tries += 1
            return _tag(store.put(name, content, mode=mode))

        for _ in range(CONFLICTS):
            try:
                return self._asking.small(what, put, patience)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                found = self.read(name, patience)
            if found is not None and tries > 1 and found.content == content:
                return found.tag
            if (found.tag if found is not None else None) != tag:
                return None
        return None

    def _pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of an object in order, several pieces on their way at a time."""

        def whole(store: Any) -> tuple[int, bytes]:
            found = store.get(name)
            size = int(found.meta["size"])
            return size, bytes(found.bytes()) if size <= PIECE_BYTES else b""

        def piece(start: int, end: int) -> bytes:
            read = bytes(self._asking.large(f"read {name}", lambda store: store.get_range(name, start=start, end=end)))
            if len(read) != end - start:
                raise InputError(f"{self.uri}/{name} changed while it was read: {len(read)} bytes instead of {end - start} at {start}")
            return read

        try:
            size, content = self._asking.large(f"read {name}", whole)
            if size <= PIECE_BYTES:
                yield content
                return
            with ThreadPoolExecutor(PIECES) as pool:
                coming: deque[Future[bytes]] = deque()
                for start in range(0, size, PIECE_BYTES):
                    coming.append(pool.submit(piece, start, min(start + PIECE_BYTES, size)))
                    if len(coming) == PIECES:
                        yield coming.popleft().result()
                while coming:
                    yield coming.popleft().result()
        except FileNotFoundError as error:
            raise InputError(f"{self.uri}/{name} is gone") from error


@lru_cache
def open_bucket(uri: str) -> Bucket:
    """The bucket at `uri`; nothing is asked of it yet. ConfigError for what names no object store or holds a secret."""
    if re.search(r"[@?#]", uri):  # what could be a secret is not repeated
        raise ConfigError(
            "an object store's URI holds more than a bucket and a prefix; leave names, keys and options out: "
            "each node takes them from its own environment or role"
        )
    match = re.fullmatch(r"([a-z0-9]+)://[A-Za-z0-9][A-Za-z0-9._-]+((?:/[A-Za-z0-9._=+-]+)*)/?", uri)
    if match is None or match[1] not in SCHEMES or {".", ".."} & set(match[2].split("/")):
        known = ", ".join(f"{scheme}://…" for scheme in SCHEMES)
        raise ConfigError(f"{uri!r} names no object store; write {known}, a bucket and a plain prefix, as in s3://models/mergeline")
    return Bucket(uri.rstrip("/"))


def remove_halves(path: Path) -> None:
    """Remove what a killed process has left of downloads to `path`. Whoever asks knows that none is on its way now."""
    for left in path.parent.glob(f"{glob.escape(_half(path))}*.tmp"):
        left.unlink(missing_ok=True)


def _half(path: Path) -> str:
    """How the name of what is not whole yet begins."""
    return f".{path.name}."


def _tag(meta: Any) -> str:
    """S3 and Azure bind a write to the entity tag, Google Cloud to the version: both are kept."""
    return f"{meta.get('e_tag') or ''} {meta.get('version') or ''}".strip()


def _version(tag: str) -> dict[str, str]:
    e_tag, _, version = tag.partition(" ")
    return {"e_tag": e_tag, "version": version} if version else {"e_tag": e_tag}


def _shown(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
