"""Where a conversion writes until it is complete: a hidden directory beside the files, held by one run at a time, then all files at once.

Beside the files lie `<data set>.report.json`, what each file is and what is missing from it, and `.digests.json`, their SHA-256 with
size and time of change, so that a reader need not read gigabytes to know them. The latter can be thrown away.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from foundation.errors import ConfigError, ResourceError
from foundation.files import fsync_path, write_json_atomic
from tasks.arrow.drafts import OWN_OPTIONS, Options
from tasks.arrow.names import ENDING, is_sharded
from tasks.arrow.report import FileRow, Lacks

DIGESTS = ".digests.json"

WAYS = ("only", "replace")
"""Options that do not change what a file holds."""


def check_output(out: Path, files: Sequence[str], options: Options, vocabulary: str = "") -> None:
    """ConfigError where a file that would be written is there already, unless it is to be replaced."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a directory")
    wanted = [file for file in files if not options.only or file in options.only]
    there = sorted(path.name for file in wanted for path in present(out, file))
    if there and not options.replace:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise ConfigError(f"{out} holds {there[0]}{more} already; choose another --out, or --replace to write them anew")


def present(folder: Path, name: str) -> list[Path]:
    """The file called `name`, or its shards in order, as far as they are in a folder."""
    if not is_sharded(name):
        path = folder / f"{name}{ENDING}"
        return [path] if path.exists() else []
    found = ((path.name.removeprefix(name).removesuffix(ENDING), path) for path in folder.glob(f"{name}*{ENDING}"))
    return [path for _, path in sorted((int(number), path) for number, path in found if number.isdigit())]


class Publishing:
    """A context manager over the hidden directory `folder`. What an earlier run that was killed left in it is removed."""

    def __init__(self, out: Path, data: str) -> None:
        self.out, self.data, self.folder = out, data, out / f".{data}.writing"

    def __enter__(self) -> "Publishing":
        self.made = not self.out.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"--out {self.out} cannot be written ({error.strerror}); choose one that you may write in") from error
        self.lock = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self.lock)
            raise ResourceError(f"{self.out}: another run is writing {self.data} there; wait for it, or choose another --out") from error
        for path in self.folder.iterdir():
            path.unlink()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)
        if self.made and not any(self.out.iterdir()):
            self.out.rmdir()

    def publish(self, files: Sequence[FileRow], lacks: Lacks, options: Options, extra: Iterable[str]) -> None:
        """Move every file into place; shards of an earlier run that are no more go."""
        new = {f"{row.name}{ENDING}" for row in files}
        runs = {row.name.rstrip("0123456789") for row in files}
        stale = [path for run in sorted(runs) if is_sharded(run) for path in present(self.out, run) if path.name not in new]
        for name in [*extra, *sorted(new)]:
            fsync_path(self.folder / name)
            os.replace(self.folder / name, self.out / name)
        for path in stale:
            path.unlink()
        self._tell(files, lacks, options, {path.name for path in stale})
        fsync_path(self.out)

    def _tell(self, files: Sequence[FileRow], lacks: Lacks, options: Options, gone: set[str]) -> None:
        """Bring the report and the digests up to date; what they say of other files stays."""
        said = _read(self.out / f"{self.data}.report.json").get("files", {})
        known = _read(self.out / DIGESTS)
        chosen = {key: value for key, value in asdict(options).items() if OWN_OPTIONS.get(key, self.data) == self.data and key not in WAYS}
        if "without_coco" in chosen:
            chosen["without_coco"] = options.without_coco is not None
        for row in files:
            run = row.name.rstrip("0123456789") if is_sharded(row.name.rstrip("0123456789")) else row.name
            facts = {key: value for key, value in asdict(row).items() if key not in {"name", "missing"}}
            said[row.name] = {**facts, "options": chosen, "missing": lacks.record(run)}
            status = (self.out / f"{row.name}{ENDING}").stat()
            known[f"{row.name}{ENDING}"] = {"size": status.st_size, "changed": status.st_mtime_ns, "sha256": row.digest}
        for name in gone:
            said.pop(name.removesuffix(ENDING), None)
            known.pop(name, None)
        write_json_atomic(self.out / f"{self.data}.report.json", {"data_set": self.data, "files": said})
        write_json_atomic(self.out / DIGESTS, known)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}  # none yet, or damaged: it is written anew
