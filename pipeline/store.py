"""The store: one directory per step, `<kind>-<fingerprint>/`, done exactly when its `record.json` exists.

    store/merge-5f0c…/record.json     written last, atomically: the truth about the step
                      checkpoint/     its output, published by rename
                      history.jsonl   training metrics with their own time stamps
                      usage*.jsonl    what it took of its machine (`graph/usage.py`)
                      work/           scratch; survives an interruption, removed when the step is done
    store/locks/merge-5f0c….lock      held by the process that runs the step; freed by the system when that process dies

The store knows steps, files and records. It knows neither Ray nor MLflow.
"""

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from foundation.errors import InputError, ResourceError
from foundation.files import directory_manifest, manifest_digest, write_json_atomic
from pipeline.step import Outcome, Step

RECORD_FORMAT = 1
NOT_OUTPUT = ("work/", "history.jsonl", "usage")
"""Beginnings of the names in a step's directory that are no part of what it makes."""


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
        return None if place is None else self.directory / place  # an absolute place stays as it is

    @property
    def digest(self) -> str:
        """SHA-256 over the names and digests of the output's files."""
        return str(self.content["outputs"]["digest"])

    @property
    def metrics(self) -> dict[str, Any]:
        """What the step measured."""
        return dict(self.content["metrics"])


class Store:
    """Steps and their records below one directory that all workers can see."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def directory(self, step: Step) -> Path:
        """Where a step's files lie, done or not."""
        return self.root / step.key

    def record(self, step: Step) -> Record | None:
        """The step's record if it is done and its files are all there with their sizes; else None (`why_not` says why)."""
        if self.why_not(step):
            return None
        self._tidy(step)
        return self._read(step)

    def why_not(self, step: Step) -> str | None:
        """Why the step has to run, or None if it is stored."""
        directory = self.directory(step)
        if not (directory / "record.json").exists():
            return "was interrupted, goes on from there" if (directory / "work").exists() else "never run"
        record = self._read(step)
        home = record.checkpoint or directory
        for name, size in record.content["outputs"]["sizes"].items():
            path = home / name
            if not path.exists():
                return f"its file {name} is gone"
            if path.stat().st_size != size:
                return f"its file {name} has {path.stat().st_size} bytes where the record says {size}"
        return None

    def by_key(self, key: str) -> Record | None:
        """The record of a finished step by its key alone, for reports; its files are not looked at."""
        path = self.root / key / "record.json"
        return Record(key, _content(path), path.parent) if path.exists() else None

    def has_taken(self, place: Path) -> bool:
        """Whether a finished step took up the checkpoint at `place`, outside the store, with the files it has now (by their sizes)."""
        for path in sorted(self.root.glob("pretrained-*/record.json")):
            outputs = _content(path)["outputs"]
            if outputs["checkpoint"] == str(place.absolute()):
                sizes = {name: (place / name).stat().st_size for name in outputs["sizes"] if (place / name).exists()}
                if sizes == outputs["sizes"]:
                    return True
        return False

    def _read(self, step: Step) -> Record:
        path = self.directory(step) / "record.json"
        content = _content(path)
        if content.get("fingerprint") != step.fingerprint:
            raise InputError(f"{path} is not the record of {step.key}; remove that directory from the store and run again")
        return Record(step.key, content, path.parent)

    @contextmanager
    def locked(self, step: Step, wait: bool = True) -> Iterator[None]:
        """Hold the step against every other process: who comes second waits and then finds it done. Timeout if one is not to `wait`."""
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / "locks" / f"{step.key}.lock", timeout=-1 if wait else 0):
            yield

    def _tidy(self, step: Step) -> None:
        """Remove the scratch directory of a process that was killed between its record and this, unless somebody is at the step again."""
        work = self.directory(step) / "work"
        if work.exists():
            with suppress(Timeout, OSError), self.locked(step, wait=False):
                if work.with_name("record.json").exists():
                    shutil.rmtree(work, ignore_errors=True)

    def begin(self, step: Step) -> Path:
        """The step's directory with a `work/` inside it; what an interrupted attempt left in `work/` is kept."""
        directory = self.directory(step)
        (directory / "record.json").unlink(missing_ok=True)
        for left in sorted(directory.glob(".*.tmp")):  # half-written outputs of a killed attempt: the lock says that nobody is writing them
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        (directory / "work").mkdir(parents=True, exist_ok=True)
        return directory

    def finish(self, step: Step, outcome: Outcome, facts: dict[str, Any]) -> Record:
        """Write the record: from here on the step is done. `facts` are times, versions and the code's own version."""
        directory = self.directory(step)
        home = outcome.checkpoint or directory
        found = directory_manifest(home) if outcome.files is None else outcome.files
        manifest = {name: digest for name, digest in found.items() if not name.startswith(NOT_OUTPUT)}
        inside = outcome.checkpoint is not None and outcome.checkpoint.is_relative_to(directory)
        place = str(outcome.checkpoint.relative_to(directory)) if inside and outcome.checkpoint else outcome.checkpoint
        content = {
            "format": RECORD_FORMAT,
            "kind": step.kind,
            "fingerprint": step.fingerprint,
            "spec": step.identity,
            "inputs": [needed.key for needed in step.inputs],
            "outputs": {
                "checkpoint": None if place is None else str(place),
                "digest": manifest_digest(manifest),
                "files": manifest,
                "sizes": {name: (home / name).stat().st_size for name in manifest},
            },
            "metrics": dict(outcome.metrics),
            "details": dict(outcome.details),
            **facts,
        }
        with _told_if_full(directory, len(json.dumps(content, indent=2))):
            write_json_atomic(directory / "record.json", content)
        shutil.rmtree(directory / "work", ignore_errors=True)
        return self._read(step)


@contextmanager
def _told_if_full(directory: Path, nbytes: int) -> Iterator[None]:
    """Turn a full disk into a ResourceError that says how many bytes were to be written, and how many are free."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ResourceError(
            f"no room for the record of {directory.name} in {directory.parent} ({error.strerror}): it needs {nbytes:,} bytes, "
            f"{shutil.disk_usage(directory).free:,} are free; make room and run the same command again, what is stored is intact"
        ) from error


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); remove {path.parent.name} from the store and run again") from error
    if not isinstance(content, dict) or content.get("format") != RECORD_FORMAT:
        found = content if isinstance(content, dict) else {}
        versions = found.get("versions")
        by = versions.get("mergeline", "unknown") if isinstance(versions, dict) else "unknown"
        raise InputError(
            f"{path} is not a record in format {RECORD_FORMAT}, which this version of mergeline reads, but in {found.get('format')!r}, "
            f"written by version {by}; go on with that version, or remove {path.parent.name} from the store and run again"
        )
    if not _is_whole(content):
        raise InputError(f"{path} is damaged: it lacks what every record has; remove {path.parent.name} from the store and run again")
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
    texts = [*content["inputs"], *files.values(), *files, *sizes, *([] if place is None else [place])]
    inside = all("\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts for name in (*files, *sizes))
    return (
        inside and all(isinstance(text, str) and "\0" not in text for text in texts) and all(type(size) is int for size in sizes.values())
    )
