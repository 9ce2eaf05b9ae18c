"""The files that one execution of a step puts into the object store, `store/<key>/<attempt>/…`, and how a record tells them.

Every execution has an attempt of its own, so that nothing is ever overwritten.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import ResourceError
from foundation.files import file_sha256
from pipeline.objects.bucket import Bucket, open_bucket

AT_ONCE = 4
SMALL_BYTES = 1 << 20
"""Up to here a file is read into memory and written at one time: it may be growing."""
TRIES = 5
"""A larger file that grows while it is on its way is put there so often."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class Held:
    """A file in the object store: its bytes by number and SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Attempt:
    """One execution's place in the object store."""

    uri: str
    key: str
    name: str

    def upload(self, path: Path, name: str, digest: str | None = None) -> Held:
        """Put one file there; its SHA-256 may be known."""
        return uploaded(open_bucket(self.uri), path, f"store/{self.key}/{self.name}/{name}", digest)

    def upload_all(self, files: Mapping[str, Path], known: Mapping[str, str] | None = None) -> dict[str, Held]:
        """Put files there, a few at a time; by the names they have there. `known`: SHA-256 of some."""
        digests = known or {}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(files, pool.map(lambda name: self.upload(files[name], name, digests.get(name)), files), strict=True))


def put(bucket: Bucket, path: Path, name: str) -> None:
    """Put the file at `path` there as `name`; its bytes are told nowhere."""
    if path.stat().st_size <= SMALL_BYTES:
        bucket.write(name, path.read_bytes())
    else:
        bucket.upload(path, name)


def uploaded(bucket: Bucket, path: Path, name: str, digest: str | None = None) -> Held:
    """Put the file at `path` there as `name`, and tell what is there. What grows meanwhile is put there as it was at one moment: read at
    one time where it is small, else put again. ResourceError where it never stops growing."""
    for _ in range(TRIES):
        size = path.stat().st_size
        if size <= SMALL_BYTES:
            content = path.read_bytes()
            bucket.write(name, content)
            return Held(len(content), hashlib.sha256(content).hexdigest())
        found = digest or file_sha256(path)
        bucket.upload(path, name)
        if path.stat().st_size == size:
            return Held(size, found)
    raise ResourceError(f"{path} grew each of the {TRIES} times that it was put into {bucket.uri}; end what writes to it and run again")


def held_in(content: Mapping[str, Any]) -> dict[str, Held]:
    """The files that a record says are there, by their names in the step's directory."""
    return {name: Held(each["size"], each["sha256"]) for name, each in content.get("objects", {}).items()}


def is_other(name: str, attempt: str) -> bool:
    """Whether an object of a step (its name below `store/<key>/`) is neither the record nor of this attempt: rubbish, once it is done."""
    return "/" in name and not name.startswith(f"{attempt}/")


def lacking(content: Mapping[str, Any], names: Mapping[str, int]) -> str | None:
    """What of a record's files is not among `names` (relative name -> bytes), or has another size."""
    for name, each in held_in(content).items():
        size = names.get(f"{content['attempt']}/{name}")
        if size is None:
            return f"its file {name} is gone"
        if size != each.size:
            return f"its file {name} has {size} bytes where the record says {each.size}"
    return None


def is_small(name: str) -> bool:
    """Whether a file of a step's directory is one that reports read: no weights, and not in a checkpoint."""
    return "/" not in name and not name.endswith(WEIGHTS)
