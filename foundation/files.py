"""Durable files: a file or a directory is either wholly there or not there at all.

Written to a temporary neighbour, flushed to disk, then renamed into place: the order that survives `kill -9` and power loss.
Digests are SHA-256; a directory's digest is that of its sorted (relative name, file digest) list, so it does not depend on where it lies.
"""

import hashlib
import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

BLOCK_BYTES = 1 << 20


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write `content` so that a reader sees the old file or the new one, never a part."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


def write_json_atomic(path: Path, value: Any) -> None:
    """Write `value` as readable JSON with sorted keys, atomically."""
    write_atomic(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def publish_directory(temporary: Path, final: Path) -> None:
    """Make `temporary` appear as `final`, complete: flush every file, then rename.

    What was at `final` is moved aside first and removed last, so that at no time a part of it stands there.
    """
    for path in sorted(temporary.rglob("*")):
        fsync_path(path)
    fsync_path(temporary)
    aside = final.with_name(f".{final.name}.{uuid.uuid4().hex[:8]}.tmp")
    if final.exists():
        os.rename(final, aside)
    os.rename(temporary, final)
    fsync_path(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def file_name(text: str) -> str:
    """`text` as a name that every file system takes: runs of other characters become one underscore."""
    return re.sub(r"[^A-Za-z0-9._=+-]+", "_", text)


def fsync_path(path: Path) -> None:
    """Flush one file or directory entry to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            state.update(block)
    return state.hexdigest()


def directory_manifest(directory: Path) -> dict[str, str]:
    """Relative name -> SHA-256 of every file below `directory`, sorted by name."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): file_sha256(path) for path in files}


def manifest_digest(manifest: dict[str, str]) -> str:
    """One SHA-256 for a manifest: equal exactly when names and bytes of all files are equal."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
