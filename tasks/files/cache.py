"""What was found out once and need not be found out again: digests of record files, what records name, and which images decode.

All of it can be thrown away. With a cache directory it outlives the process and is shared by the workers; without one it is remembered in
memory. A file counts as the same while its place, size and time of change (in nanoseconds) are the same.
"""

import json
import zlib
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from foundation.files import file_sha256, write_atomic, write_json_atomic
from tasks.files.readers import stamp

DIGESTS = "record_files.json"
IMAGES = "images_that_decode.v1"
WIDTH = 16

_digests: dict[str, str] = {}
_images: dict[str, set[bytes]] = {}


def file_digest(path: str, cache: str) -> str:
    """SHA-256 of a record file; read once per state of the file."""
    place, size, changed = stamp(path)
    key = f"{place}|{size}|{changed}"
    kept = Path(cache) / DIGESTS
    if key not in _digests:
        known: dict[str, str] = json.loads(kept.read_text()) if cache and kept.exists() else {}
        _digests[key] = known[key] if key in known else file_sha256(Path(place))
        if cache and key not in known:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(kept, known | {key: _digests[key]})
    return _digests[key]


def remembered(name: str, cache: str, find: Callable[[], list[str]]) -> list[str]:
    """The list that `find` gives, kept under `name`: for what depends on contents alone that the name stands for."""
    kept = Path(cache) / f"{name}.json.z"
    if cache and kept.exists():
        return json.loads(zlib.decompress(kept.read_bytes()))
    found = find()
    if cache:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, zlib.compress(json.dumps(found).encode(), 1))
    return found


def mark(*parts: object) -> bytes:
    """Sixteen bytes that stand for one state of one image."""
    return blake2b("|".join(map(str, parts)).encode("utf-8", "surrogateescape"), digest_size=WIDTH).digest()


def content_mark(content: bytes) -> bytes:
    """Sixteen bytes that stand for an image by its bytes."""
    return blake2b(content, digest_size=WIDTH).digest()


class SoundImages:
    """The images that are known to decode. Only what is sound is remembered, so what was mended is looked at again."""

    def __init__(self, cache: str) -> None:
        self.path = Path(cache) / IMAGES if cache else None
        self.known = _images.setdefault(cache, set())
        content = self.path.read_bytes() if self.path and self.path.exists() else b""
        self.known.update(content[start : start + WIDTH] for start in range(0, len(content), WIDTH))
        self.saved = len(self.known)

    def save(self, least: int = 1) -> None:
        """Write what is new where it is at least `least` images, with what other processes have written meanwhile."""
        if self.path is None or len(self.known) - self.saved < least:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = self.path.read_bytes() if self.path.exists() else b""
        self.known.update(content[start : start + WIDTH] for start in range(0, len(content), WIDTH))
        write_atomic(self.path, b"".join(sorted(self.known)))
        self.saved = len(self.known)
