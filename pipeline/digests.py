"""Digests of checkpoints that lie outside the store, remembered by (path, size, time of change) so that gigabytes are read once."""

import json
from pathlib import Path

from foundation.files import file_sha256, write_json_atomic


def checkpoint_manifest(directory: Path, remembered: Path) -> dict[str, str]:
    """Name -> SHA-256 of a checkpoint directory's own files (no subdirectories, nothing hidden)."""
    known: dict[str, str] = json.loads(remembered.read_text()) if remembered.exists() else {}
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
