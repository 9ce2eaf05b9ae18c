"""Digests of checkpoints that lie outside the store, remembered by (path, size, time of change) so that gigabytes are read once."""

import json
import re
from pathlib import Path

from foundation.files import file_sha256, write_json_atomic

DIGEST = re.compile(r"[0-9a-f]{64}")


def checkpoint_manifest(directory: Path, remembered: Path) -> dict[str, str]:
    """Name -> SHA-256 of a checkpoint directory's own files (no subdirectories, nothing hidden)."""
    known = _remembered(remembered)
    manifest, before = {}, len(known)
    for path in sorted(directory.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            status = path.stat()
            stamp = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
            if stamp not in known:
                known[stamp] = file_sha256(path)
            manifest[path.name] = known[stamp]
    if len(known) != before:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(remembered, known)
    return manifest


def _remembered(path: Path) -> dict[str, str]:
    """What the file remembers; nothing where it is damaged, for then the files are read again."""
    try:
        found = json.loads(path.read_bytes()) if path.exists() else {}
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if DIGEST.fullmatch(str(value))} if isinstance(found, dict) else {}
