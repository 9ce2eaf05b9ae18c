"""Carry out a plan: lay out the output beside its final place, let an executor run the work items, finish, check, and publish by rename.

The output directory appears only when complete. An exception removes what was begun; `kill -9` leaves a hidden `.NAME.<id>.tmp` that no
loader takes for a model and that the next merge to the same place removes.
"""

import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from foundation.errors import ConfigError, InputError
from foundation.files import file_sha256, manifest_digest, publish_directory
from mergers.card import model_card
from mergers.checkpoint import INDEX, read_checkpoint
from mergers.layout import WorkItem
from mergers.plan import Plan, check_output
from mergers.shard import ItemOutcome, disk_errors, merge_shard

Progress = Callable[[int, int], None]
HASH_THREADS = 4


class Executor(Protocol):
    """Runs a function over work items, anywhere and in any order; every item at least once."""

    def map(self, function: Callable[[WorkItem], ItemOutcome], items: Sequence[WorkItem]) -> Iterator[ItemOutcome]:
        """The outcome of each item, once per item, in any order. When the iterator ends by an exception or is closed, no item may be
        running any more."""
        ...


@dataclass(frozen=True)
class InProcess:
    """Runs the items in this process, on `threads` threads."""

    threads: int = 1

    def map(self, function: Callable[[WorkItem], ItemOutcome], items: Sequence[WorkItem]) -> Iterator[ItemOutcome]:
        """The outcomes, in order of completion."""
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; it must be at least 1")
        if self.threads == 1:
            yield from map(function, items)
            return
        pool = ThreadPoolExecutor(self.threads)
        try:
            for future in as_completed([pool.submit(function, item) for item in items]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class MergeResult:
    """What a merge has made. `files` maps each file to its SHA-256; `digest` is the SHA-256 of that table; `tensors_copied` were the same
    in all sources."""

    output: Path
    files: dict[str, str]
    digest: str
    tensors_merged: int
    tensors_copied: int
    parameters: int
    bytes_read: int
    bytes_written: int
    seconds: float


def execute(plan: Plan, executor: Executor | None = None, progress: Progress | None = None) -> MergeResult:
    """Carry out `plan` and publish its output directory; `progress(bytes_done, bytes_total)` is called after every work item.

    Raises InputError for weights that are not finite or had to be equal and are not, ResourceError for a full disk. Then no output is left
    behind.
    """
    began = time.monotonic()
    with temporary_neighbour(plan.output) as directory, disk_errors(directory.parent):
        lay_out(plan, directory)
        total = run_items(plan, directory, executor or InProcess(), progress)
        files = finish(plan, directory, len(total.computed))
        check_output(plan.output, [*plan.sources, *([plan.base] if plan.base else [])], plan.replace)
        publish_directory(directory, plan.output)
    merged = len(total.computed)
    return MergeResult(
        output=plan.output,
        files=files,
        digest=manifest_digest(files),
        tensors_merged=merged,
        tensors_copied=len(plan.tensors) - merged,
        parameters=plan.parameters,
        bytes_read=total.bytes_read,
        bytes_written=total.bytes_written,
        seconds=time.monotonic() - began,
    )


def lay_out(plan: Plan, directory: Path) -> None:
    """Create every weight file at its full size with its header, ready for workers to fill in."""
    for file in plan.files:
        with open(directory / file.name, "wb") as handle:
            handle.write(file.header)
            handle.truncate(file.nbytes)


def run_items(plan: Plan, directory: Path, executor: Executor, progress: Progress | None) -> ItemOutcome:
    """Run all work items and add up what they report; InputError if any weight is not finite."""
    total = ItemOutcome(0)
    returned = 0
    for outcome in executor.map(partial(merge_shard, directory=str(directory)), plan.items):
        returned += 1
        total.nbytes += outcome.nbytes
        total.computed |= outcome.computed
        total.bytes_read += outcome.bytes_read
        total.bytes_written += outcome.bytes_written
        total.nonfinite += outcome.nonfinite
        if progress:
            progress(total.nbytes, plan.bytes_to_write)
    if returned != len(plan.items):
        raise RuntimeError(f"the executor returned {returned} outcomes for {len(plan.items)} work items")
    if total.nonfinite:
        raise InputError(nonfinite_message(total.nonfinite))
    return total


def nonfinite_message(counts: Counter[tuple[str, str]]) -> str:
    """The sentence for NaN and infinite values: how many, in which tensors, in which source."""
    tensors = {tensor for tensor, _ in counts}
    listed = [f"'{tensor}': {count} in {where}" for (tensor, where), count in sorted(counts.items())]
    more = f"; and {len(listed) - 5} more" if len(listed) > 5 else ""
    return (
        f"{sum(counts.values())} values in {len(tensors)} tensors are NaN or infinite ({'; '.join(listed[:5])}{more}); find out what "
        "broke the checkpoint, "
        "or set allow_nonfinite to merge all the same"
    )


def finish(plan: Plan, directory: Path, merged: int) -> dict[str, str]:
    """Add index, small files and model card, prove that the result reads back as planned, and return every file's SHA-256."""
    if len(plan.files) > 1:
        (directory / INDEX).write_text(index_text(plan))
    for companion in plan.companions:
        target = directory / companion.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(companion.content())
    digests = hash_files(directory, [file.name for file in plan.files])
    (directory / "README.md").write_text(model_card(plan, merged, len(plan.tensors) - merged, digests))
    made = {name: (entry.dtype, entry.shape) for name, entry in read_checkpoint(directory).tensors.items()}
    if made != {tensor.name: (tensor.dtype, tensor.shape) for tensor in plan.tensors}:
        raise RuntimeError(f"{directory} does not hold the tensors that were planned")
    others = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    digests |= hash_files(directory, [name for name in others if name not in digests])
    return dict(sorted(digests.items()))


def index_text(plan: Plan) -> str:
    """The content of model.safetensors.index.json."""
    weight_map = {name: file.name for file in plan.files for name in file.starts}
    metadata = {"total_parameters": plan.parameters, "total_size": plan.bytes_to_write}
    return json.dumps({"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}, indent=2) + "\n"


def hash_files(directory: Path, names: Sequence[str]) -> dict[str, str]:
    """Name -> SHA-256, several files at a time."""
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: file_sha256(directory / name), names), strict=True))


@contextmanager
def temporary_neighbour(output: Path) -> Iterator[Path]:
    """A new hidden directory beside `output`, locked while in use and removed at the end unless it was renamed; stale ones are removed
    first."""
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(output)
    directory = output.parent / f".{output.name}.{uuid.uuid4().hex[:8]}.tmp"
    directory.mkdir()
    lock = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def remove_stale(output: Path) -> None:
    """Remove what killed merges to `output` left: directories of its temporary name, over a minute old, whose lock nobody holds."""
    pattern = re.compile(rf"^\.{re.escape(output.name)}\.[0-9a-f]{{8}}\.tmp$")
    for path in sorted(output.parent.iterdir()):
        if not pattern.match(path.name) or not path.is_dir() or time.time() - path.stat().st_mtime < 60:
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # a merge that is under way holds it, or this file system has no locks: then it is left alone
        else:
            shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)
