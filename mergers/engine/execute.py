"""Carry out a plan: run the counting rounds, lay out the output beside its final place, let an executor run the work items, finish, check,
and publish by rename.

The output directory appears only when complete. An exception removes what was begun; `kill -9` leaves a hidden `.NAME.<id>.tmp` that no
loader takes for a model and that the next merge to the same place removes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import ConfigError, InputError, ResourceError
from foundation.files import file_sha256, manifest_digest, publish_directory
from mergers.card import model_card
from mergers.checkpoints.checkpoint import INDEX, read_checkpoint
from mergers.checks import check_output
from mergers.engine.counting import Executor, Meter, Progress, checked, informed, nonfinite_message, run_rounds
from mergers.engine.layout import WorkItem
from mergers.engine.machine import disk_errors, one_torch_thread
from mergers.engine.outcome import ItemOutcome, Nonfinite
from mergers.engine.settle import Settling
from mergers.plan import Plan
from mergers.table import method_name

if TYPE_CHECKING:
    from mergers.merger import Array

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class InProcess:
    """Runs the items in this process, on `threads` threads."""

    threads: int = 1

    def map(self, function: Callable[[WorkItem], ItemOutcome], items: Sequence[WorkItem]) -> Iterator[ItemOutcome]:
        """The outcomes, in order of completion."""
        if self.threads < 1:
            raise ConfigError(f"threads is {self.threads}; it must be at least 1")
        with one_torch_thread(), ThreadPoolExecutor(self.threads) as pool:
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


def execute(plan: Plan, executor: Executor | None = None, progress: Progress | None = None, device: str = "cpu") -> MergeResult:
    """Carry out `plan` and publish its output directory; `progress(bytes_done, bytes_total)` is called after every work item.

    Bytes are those read and written, over all passes. `device` computes ("cuda" where there is one); reading and writing stay on the
    processor. Raises InputError for weights that are not finite or had to be equal and are not, ResourceError for a full disk. Then no
    output is left behind.
    """
    began = time.monotonic()
    executor = executor or InProcess()
    check_device(device, plan, here=isinstance(executor, InProcess))
    meter = Meter(plan.bytes_to_move, progress)
    known = run_rounds(plan.items, executor, meter, device)
    with temporary_neighbour(plan.output) as directory, disk_errors(directory.parent, plan.bytes_to_write):
        lay_out(plan, directory)
        with Settling(directory, plan.files, plan.items) as settling:
            computed = run_items(plan, known, directory, executor, meter, settling, device)
            digests = settling.digests()
        files = finish(plan, directory, len(computed), digests)
        check_output(plan.output, plan.everyone, plan.replace)
        publish_directory(directory, plan.output)
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


def check_device(device: str, plan: Plan, here: bool) -> None:
    """Raise ConfigError for a device that is none or that a method of the plan does not compute on, ResourceError if it is not there.

    `here`: it is this process that computes.
    """
    if device not in DEVICES:
        raise ConfigError(f"device is {device!r}; a merge computes on {' or '.join(DEVICES)}")
    if device == "cpu":
        return
    bound = next((tensor.merger for tensor in plan.tensors if not tensor.merger.on_device), None)
    if bound is not None:
        raise ConfigError(f"{method_name(bound)} computes on the processor only; leave device at cpu")
    if here:
        import torch

        if not torch.cuda.is_available():
            raise ResourceError("device is cuda, but torch finds no GPU here; merge on the processor, or on Ray actors that have one")


def lay_out(plan: Plan, directory: Path) -> None:
    """Create every weight file at its full size with its header, ready for workers to fill in."""
    for file in plan.files:
        with open(directory / file.name, "wb") as handle:
            handle.write(file.header)
            handle.truncate(file.nbytes)


def run_items(
    plan: Plan, known: Mapping[str, Array], directory: Path, executor: Executor, meter: Meter, settling: Settling, device: str
) -> set[str]:
    """Merge all work items; the tensors that were computed, not copied. InputError if any weight is not finite."""
    from mergers.engine.shard import merge_shard

    computed: set[str] = set()
    nonfinite: Nonfinite = Counter()
    function = partial(merge_shard, directory=str(directory), device=device)
    for outcome in checked(executor.map(function, informed(plan.items, known)), len(plan.items)):
        meter.add(outcome)
        settling.written(outcome.index)
        computed |= outcome.computed
        nonfinite += outcome.nonfinite
    if nonfinite:
        raise InputError(nonfinite_message(nonfinite))
    return computed


def finish(plan: Plan, directory: Path, merged: int, digests: dict[str, str]) -> dict[str, str]:
    """Add index, small files and model card, prove that the result reads back as planned, and return every file's SHA-256."""
    if len(plan.files) > 1:
        (directory / INDEX).write_text(index_text(plan))
    for companion in plan.companions:
        target = directory / companion.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(companion.content())
    (directory / "README.md").write_text(model_card(plan, merged, len(plan.tensors) - merged, digests))
    made = {name: (entry.dtype, entry.shape) for name, entry in read_checkpoint(directory).tensors.items()}
    if made != {tensor.name: (tensor.dtype, tensor.shape) for tensor in plan.tensors}:
        raise RuntimeError(f"{directory} does not hold the tensors that were planned")
    others = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return dict(sorted({**{name: file_sha256(directory / name) for name in others if name not in digests}, **digests}.items()))


def index_text(plan: Plan) -> str:
    """The content of model.safetensors.index.json."""
    weight_map = {name: file.name for file in plan.files for name in file.starts}
    metadata = {"total_parameters": plan.parameters, "total_size": plan.bytes_to_write}
    return json.dumps({"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}, indent=2) + "\n"


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
