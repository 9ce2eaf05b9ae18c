"""What is known of a finished step: the content of its `record.json`, checked.

What the rest of the program takes for granted is there, or the file is refused with what to do.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import InputError

RECORD_FORMAT = 1


@dataclass(frozen=True)
class Record:
    """What is known of a finished step: the content of its `record.json`, with paths resolved against the store."""

    key: str
    content: dict[str, Any]
    directory: Path

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint directory it made, if it made one."""
        place = self.content["outputs"].get("checkpoint")
        return None if place is None else Path(os.path.normpath(self.directory / place))  # an absolute place stays as it is

    @property
    def digest(self) -> str:
        """SHA-256 over the names and digests of the output's files."""
        return str(self.content["outputs"]["digest"])

    @property
    def metrics(self) -> dict[str, Any]:
        """What the step measured."""
        return dict(self.content["metrics"])


def read_content(path: Path) -> dict[str, Any]:
    """The content of the record at `path`; InputError where it is none."""
    return checked_content(path.read_bytes(), str(path), path.parent.name)


def checked_content(text: bytes, where: str, key: str) -> dict[str, Any]:
    """What a record says that was read from `where`, of the step `key`; InputError where it is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON ({error}); remove {key} from the store and run again") from error
    if not isinstance(content, dict) or content.get("format") != RECORD_FORMAT:
        found = content if isinstance(content, dict) else {}
        versions = found.get("versions")
        by = versions.get("mergeline", "unknown") if isinstance(versions, dict) else "unknown"
        raise InputError(
            f"{where} is not a record in format {RECORD_FORMAT}, which this version of mergeline reads, but in {found.get('format')!r}, "
            f"written by version {by}; go on with that version, or remove {key} from the store and run again"
        )
    if not _is_whole(content):
        raise InputError(f"{where} is damaged: it lacks what every record has; remove {key} from the store and run again")
    return content


def _is_whole(content: dict[str, Any]) -> bool:
    """Whether a record has what the rest of the program takes for granted, and names no file outside its output."""
    kinds = {"kind": str, "fingerprint": str, "spec": dict, "inputs": list, "outputs": dict, "metrics": dict, "details": dict}
    if not all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
        return False
    outputs = content["outputs"]
    files, sizes, place = outputs.get("files"), outputs.get("sizes"), outputs.get("checkpoint", 0)
    if not isinstance(files, dict) or not isinstance(sizes, dict) or not isinstance(outputs.get("digest"), str):
        return False
    held = content.get("objects", {})
    if not isinstance(held, dict) or not all(_is_held(each) for each in held.values()) or (held and not _is_attempt(content)):
        return False
    texts = [*content["inputs"], *files.values(), *files, *sizes, *([] if place is None else [place])]
    inside = all("\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts for name in (*files, *sizes, *held))
    return (
        inside and all(isinstance(text, str) and "\0" not in text for text in texts) and all(type(size) is int for size in sizes.values())
    )


def _is_held(told: Any) -> bool:
    """Whether `told` says of a file in an object store how large it is and what its bytes are."""
    return isinstance(told, dict) and type(told.get("size")) is int and isinstance(told.get("sha256"), str)


def _is_attempt(content: dict[str, Any]) -> bool:
    attempt = content.get("attempt")
    return isinstance(attempt, str) and attempt.isalnum()
