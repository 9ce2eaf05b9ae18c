"""A plan carried out by workers that share no disk: each output file is written whole by one of them, and delivered from there.

The plan, its blocks and its bytes are those of `execute`; only who writes which of them is another matter. What is left to the process that
asks are the small files: index, config, tokenizer, model card.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from foundation.errors import InputError
from foundation.files import file_sha256, fsync_path, manifest_digest
from mergers.engine.counting import Meter, Progress, informed, nonfinite_message, run_rounds
from mergers.engine.execute import MergeResult, check_device, finish, lay_out, temporary_neighbour
from mergers.engine.layout import OutputFile, WorkItem
from mergers.engine.machine import disk_errors
from mergers.engine.outcome import Nonfinite
from mergers.engine.shard import merge_shard
from mergers.plan import Plan

Deliver = Callable[[Path, str], None]
"""Takes a finished file, on the machine of the worker that has written it, and its SHA-256; afterwards the file may be gone. Picklable."""


class Workers(Protocol):
    """Runs a function over jobs, anywhere and in any order; every job at least once."""

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """The outcome of each job."""
        ...


@dataclass(frozen=True)
class FileJob:
    """One output file, and the pieces of the work that lie in it."""

    file: OutputFile
    items: tuple[WorkItem, ...]


@dataclass
class FileOutcome:
    """What a worker reports of a file it has written and delivered."""

    name: str
    digest: str = ""
    bytes_read: int = 0
    bytes_written: int = 0
    computed: set[str] = field(default_factory=set)
    nonfinite: Nonfinite = field(default_factory=Counter)


def execute_by_file(plan: Plan, workers: Workers, room: Path, deliver: Deliver, progress: Progress | None = None) -> MergeResult:
    """Carry out `plan`; the weight files are handed to `deliver`, all other files are in the plan's output directory afterwards.

    `room`: a directory that every worker may make on its own machine, to write files in. Raises what `execute` raises; then some files may
    have been delivered.
    """
    began = time.monotonic()
    check_device("cpu", plan, here=False)
    meter = Meter(plan.bytes_to_move, progress)
    known = run_rounds(plan.items, workers, meter)
    computed: set[str] = set()
    nonfinite: Nonfinite = Counter()
    digests: dict[str, str] = {}
    for outcome in workers.map(partial(merge_file, room=room, deliver=deliver), jobs_of(plan.files, informed(plan.items, known))):
        meter.add(outcome)
        computed |= outcome.computed
        nonfinite += outcome.nonfinite
        digests[outcome.name] = outcome.digest
    if nonfinite:
        raise InputError(nonfinite_message(nonfinite))
    files = add_small_files(plan, len(computed), digests)
    return MergeResult(
        output=plan.output,
        files=files,
        digest=manifest_digest(files),
        tensors_merged=len(computed),
        tensors_copied=len(plan.tensors) - len(computed),
        parameters=plan.parameters,
        bytes_read=meter.bytes_read,
        bytes_written=meter.bytes_written,
        seconds=time.monotonic() - began,
    )


def jobs_of(files: Sequence[OutputFile], items: Sequence[WorkItem]) -> list[FileJob]:
    """The work by output file; what writes nothing (a proof of tied weights) goes with the first."""
    jobs: dict[str, list[WorkItem]] = {file.name: [] for file in files}
    first = files[0].name
    for item in items:
        of: dict[str, list[Any]] = {}
        for piece in item.pieces:
            of.setdefault(piece.output.path if piece.output else first, []).append(piece)
        for name, pieces in of.items():
            jobs[name].append(replace(item, pieces=tuple(pieces)))
    return [FileJob(file, tuple(jobs[file.name])) for file in files]


def merge_file(job: FileJob, room: Path, deliver: Deliver) -> FileOutcome:
    """Write one output file from its first byte to its last, and deliver it. A file with values that are not finite is not delivered."""
    room.mkdir(parents=True, exist_ok=True)
    outcome = FileOutcome(job.file.name)
    directory = Path(tempfile.mkdtemp(dir=room, prefix=".file.", suffix=".tmp"))
    try:
        with disk_errors(room, job.file.nbytes):
            path = directory / job.file.name
            with open(path, "wb") as handle:
                handle.write(job.file.header)
                handle.truncate(job.file.nbytes)
            for item in job.items:
                made = merge_shard(item, str(directory))
                outcome.bytes_read += made.bytes_read
                outcome.bytes_written += made.bytes_written
                outcome.computed |= made.computed
                outcome.nonfinite += made.nonfinite
            if not outcome.nonfinite:
                fsync_path(path)
                outcome.digest = file_sha256(path)
                deliver(path, outcome.digest)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return outcome


def add_small_files(plan: Plan, merged: int, digests: Mapping[str, str]) -> dict[str, str]:
    """Write what is not weights into the plan's output directory; every file's SHA-256, weights too.

    They are made, and proven to read back as planned, beside weight files that have their headers and no room on the disk.
    """
    weights = {file.name for file in plan.files}
    with temporary_neighbour(plan.output) as directory:
        lay_out(plan, directory)
        files = finish(plan, directory, merged, dict(digests))
        for name in sorted(set(files) - weights):
            target = plan.output / name
            target.parent.mkdir(parents=True, exist_ok=True)
            fsync_path(directory / name)
            os.replace(directory / name, target)
    return files
