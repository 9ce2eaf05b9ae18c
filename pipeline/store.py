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
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from foundation.errors import InputError, ResourceError
from foundation.files import directory_manifest, manifest_digest, write_json_atomic
from pipeline.intact import damaged
from pipeline.objects.marker import marked
from pipeline.record_file import RECORD_FORMAT, Record, read_content
from pipeline.step import Outcome, Step

if TYPE_CHECKING:
    from pipeline.objects.mirror import Mirror

NOT_OUTPUT = ("work/", "history.jsonl", "usage")
"""Beginnings of the names in a step's directory that are no part of what it makes."""
DAMAGED = "record.damaged.json"
"""What becomes of the record of a step whose output has changed on the disk."""


class Store:
    """Steps and their records below one directory that all workers can see, or that is each node's cache of an object store.

    Which of the two, `objects.json` in it says (`objects/marker.py`), or `objects`. Picklable: another node opens the same.
    """

    def __init__(self, root: Path, objects: str | None = None) -> None:
        self.root = root.absolute()
        self.mirror = _mirror(objects or marked(self.root), self.root)

    def directory(self, step: Step) -> Path:
        """Where a step's files lie, done or not."""
        return self.root / step.key

    def look(self) -> None:
        """Many steps will be asked for: where they lie in an object store, one question does for all."""
        if self.mirror is not None:
            self.mirror.look()

    def record(self, step: Step) -> Record | None:
        """The step's record if it is done and its files are all there with their sizes; else None (`why_not` says why)."""
        if self.why_not(step):
            return None
        if self.mirror is not None:
            content = self._content_there(step)
            if content is None:  # it was there a moment ago
                return None
            if not self.mirror.is_done(step.key):
                self.mirror.tidy(step.key, content)
            self.mirror.done(step.key, content)
        self._tidy(step)
        return self._read(step)

    def why_not(self, step: Step) -> str | None:
        """Why the step has to run, or None if it is stored."""
        directory = self.directory(step)
        if self.mirror is not None:
            return self._why_not_there(step)
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

    def _why_not_there(self, step: Step) -> str | None:
        from pipeline.objects.attempt import lacking
        from pipeline.objects.mirror import WORK

        assert self.mirror is not None
        if self.mirror.is_done(step.key):
            return None
        content = self._content_there(step)
        if content is None:
            begun = (self.directory(step) / "work").exists() or any(name.startswith(WORK) for name in self.mirror.names(step.key))
            return "was interrupted, goes on from there" if begun else "never run"
        if why := lacking(content, self.mirror.names(step.key)):
            return why
        owner, _ = self._owner(Record(step.key, content, self.directory(step)))
        if owner == step.key:
            return None
        theirs = self.mirror.content(owner)  # the checkpoint is one that another step made
        return f"its checkpoint in {owner} is gone" if theirs is None else lacking(theirs, self.mirror.names(owner))

    def _content_there(self, step: Step) -> dict[str, Any] | None:
        assert self.mirror is not None
        content = self.mirror.content(step.key)
        if content is not None and content.get("fingerprint") != step.fingerprint:
            place = f"{self.mirror.uri}/store/{step.key}"
            raise InputError(f"{place}/record.json is not the record of {step.key}; remove what lies below {place} and run again")
        return content

    def by_key(self, key: str) -> Record | None:
        """The record of a finished step by its key alone, for reports; its files are not looked at."""
        if self.mirror is not None:
            content = self.mirror.by_key(key)
            return None if content is None else Record(key, content, self.root / key)
        path = self.root / key / "record.json"
        return Record(key, read_content(path), path.parent) if path.exists() else None

    def has_taken(self, place: Path) -> bool:
        """Whether a finished step took up the checkpoint at `place`, outside the store, with the files it has now (by their sizes)."""
        for path in sorted(self.root.glob("pretrained-*/record.json")):
            content = read_content(path)
            outputs = content["outputs"]
            if str(place.absolute()) in (outputs["checkpoint"], content["details"].get("place")):
                sizes = {name: (place / name).stat().st_size for name in outputs["sizes"] if (place / name).exists()}
                if sizes == outputs["sizes"]:
                    return True
        return False

    def take_up(self, record: Record, whole: bool) -> None:
        """Have a step's files on this node, their bytes those of the record: its checkpoint, or the `whole` of its directory.

        InputError where bytes have changed; the step then counts as not done, so that the next run makes it again.
        """
        home = record.checkpoint or record.directory
        names = damaged(home, record.content["outputs"]["files"]) if self.mirror is None else self._bring(record, home, whole)
        if not names:
            return
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        what = f"{home / names[0]}{more}, made by {record.key}, is damaged: its SHA-256 is not the one in the record"
        if not home.is_relative_to(self.root):
            raise InputError(f"{what}; bring the checkpoint in {home} back as it was and run again")
        for key in {record.key, home.relative_to(self.root).parts[0]}:
            with FileLock(self.root / "locks" / f"{key}.lock"), suppress(FileNotFoundError):
                if damaged(home, record.content["outputs"]["files"]):  # still: nobody has made it again meanwhile
                    os.replace(self.root / key / "record.json", self.root / key / DAMAGED)
        raise InputError(f"{what}; the step counts as not done now: run the same command again, and it is made again")

    def _bring(self, record: Record, home: Path, whole: bool) -> list[str]:
        """Bring a step's files here, those anew whose bytes have changed on this disk; the names of those that still differ."""
        assert self.mirror is not None
        owner, below = self._owner(record)
        files, places = record.content["outputs"]["files"], [(owner, below)]
        if whole and (owner, below) != (record.key, ""):
            places.append((record.key, ""))
        names: list[str] = []
        for _ in range(2):
            for name in names:
                (home / name).unlink(missing_ok=True)
            for key, part in places:
                self.mirror.bring(key, self.mirror.by_key(key) or {}, part)
            names = damaged(home, files)
            if not names:
                break
        return names

    def _owner(self, record: Record) -> tuple[str, str]:
        """The key of the step whose directory holds the record's output, and where in it."""
        home = record.checkpoint or record.directory
        parts = home.relative_to(self.root).parts if home.is_relative_to(self.root) else (record.key,)
        return parts[0], "/".join(parts[1:])

    def _read(self, step: Step) -> Record:
        path = self.directory(step) / "record.json"
        content = read_content(path)
        if content.get("fingerprint") != step.fingerprint:
            raise InputError(f"{path} is not the record of {step.key}; remove that directory from the store and run again")
        return Record(step.key, content, path.parent)

    @contextmanager
    def locked(self, step: Step, wait: bool = True) -> Iterator[None]:
        """Hold the step against every other process: who comes second waits and then finds it done. Timeout if one is not to `wait`."""
        with self._locked_here(step, wait):
            if self.mirror is None:
                yield
                return
            with self.mirror.held(step.key, wait):
                yield

    @contextmanager
    def _locked_here(self, step: Step, wait: bool) -> Iterator[None]:
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / "locks" / f"{step.key}.lock", timeout=-1 if wait else 0):
            yield

    def _tidy(self, step: Step) -> None:
        """Remove the scratch directory of a process that was killed between its record and this, unless somebody is at the step again."""
        work = self.directory(step) / "work"
        if work.exists():
            with suppress(Timeout, OSError), self._locked_here(step, wait=False):
                if work.with_name("record.json").exists():
                    shutil.rmtree(work, ignore_errors=True)

    def begin(self, step: Step) -> Path:
        """The step's directory with a `work/` inside it; what an interrupted attempt left in `work/` is kept."""
        directory = self.directory(step)
        if self.mirror is not None:
            self.mirror.begin(step.key)
        (directory / "record.json").unlink(missing_ok=True)
        (directory / DAMAGED).unlink(missing_ok=True)
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
        place = self._place(directory, outcome.checkpoint)
        there = {name: outcome.there[f"{place}/{name}"].size for name in manifest if f"{place}/{name}" in outcome.there}
        content = {
            "format": RECORD_FORMAT,
            "kind": step.kind,
            "fingerprint": step.fingerprint,
            "spec": step.identity,
            "inputs": [needed.key for needed in step.inputs],
            "outputs": {
                "checkpoint": place,
                "digest": manifest_digest(manifest),
                "files": manifest,
                "sizes": {name: there[name] if name in there else (home / name).stat().st_size for name in manifest},
            },
            "metrics": dict(outcome.metrics),
            "details": dict(outcome.details),
            **facts,
        }
        if self.mirror is not None:
            self.mirror.finish(step.key, content, self._files(directory, home, place, manifest), outcome.there)
        else:
            with _told_if_full(directory, len(json.dumps(content, indent=2))):
                write_json_atomic(directory / "record.json", content)
        shutil.rmtree(directory / "work", ignore_errors=True)
        return self._read(step)

    def _place(self, directory: Path, checkpoint: Path | None) -> str | None:
        """How a record names its checkpoint: relative to the step's directory, or absolute where it lies elsewhere and stays there.

        In an object store it lies in some step's own directory, whatever node asks.
        """
        if checkpoint is None or checkpoint.is_relative_to(directory):
            return None if checkpoint is None else str(checkpoint.relative_to(directory))
        if self.mirror is None:
            return str(checkpoint)
        return os.path.relpath(checkpoint, directory) if checkpoint.is_relative_to(self.root) else "checkpoint"

    def _files(self, directory: Path, home: Path, place: str | None, manifest: Mapping[str, str]) -> dict[str, Path]:
        """What an object store is to have of a step: its output, and what lies beside it, by their names in the step's directory."""
        beside = (path for path in sorted(directory.rglob("*")) if path.is_file())
        names = {path.relative_to(directory).as_posix(): path for path in beside}
        found = {name: path for name, path in names.items() if not name.startswith((".", "work/", "checkpoint/", "record.json"))}
        if place is not None and not place.startswith("../"):
            found |= {f"{place}/{name}": home / name for name in manifest}
        return found


def _mirror(uri: str | None, root: Path) -> "Mirror | None":
    """The object store behind the store, where there is one; else nothing of it is loaded."""
    if uri is None:
        return None
    from pipeline.objects.mirror import Mirror

    return Mirror(uri, root)


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
