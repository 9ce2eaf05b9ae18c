"""A pipeline of three stages, performed in this process without Ray, and crashed at every durable operation in turn.

Run as a program, in a process that has nothing else in it, because each crash is a fork that ends with `os._exit`: no `finally`, no flush,
as with `kill -9`. Prints one line of JSON: how many points there were, and what went wrong at which.

    python crash_points.py DIRECTORY EVERY      # EVERY: 1 crashes every point, 7 every seventh
"""

import builtins
import io
import itertools
import json
import os
import shutil
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file

from foundation.files import publish_directory, write_json_atomic
from mergers import WiseFT
from pipeline.graph.perform import perform
from pipeline.plan import needed
from pipeline.step import Measurement, Outcome, Step, Work
from pipeline.steps import Merge
from pipeline.store import Store

STAGES = 3
CRASHED, NOTHING_TO_TEAR = 9, 8
CHANGING = ("rename", "replace", "mkdir", "unlink", "rmdir", "fsync")
"""Of `os`: what changes a directory or makes a file durable. Opening a file to write it counts too, for it makes or empties the file."""
MODES = ("before", "after", "torn")
"""Crash before the operation, after it, or at an fsync with the second half of the file lost, as when the power fails."""


@dataclass(frozen=True, eq=False, repr=False)
class Begin(Step):
    """A checkpoint of three small tensors."""

    kind: ClassVar[str] = "begin"
    seed: int

    def run(self, work: Work) -> Outcome:
        generator = torch.Generator().manual_seed(self.seed)
        tensors = {f"layer.{index}.weight": torch.randn(8, 4, generator=generator) for index in range(3)}
        return written(work, tensors)


@dataclass(frozen=True, eq=False, repr=False)
class Tune(Step):
    """Moves a checkpoint's tensors a little, in two parts; the first is kept in the scratch directory, as a stage's checkpoint is."""

    kind: ClassVar[str] = "tune"
    start: Step
    seed: int

    def run(self, work: Work) -> Outcome:
        kept = work.scratch / "half.json"
        if not kept.exists():
            write_json_atomic(kept, {"shift": self.seed / 8})
        shift = json.loads(kept.read_text())["shift"]
        tensors = load_file(work.checkpoint_of(self.start) / "model.safetensors")
        return written(work, {name: tensor * (1 + shift) + shift for name, tensor in tensors.items()})


@dataclass(frozen=True, eq=False, repr=False)
class Score(Measurement):
    """A figure of a checkpoint, in a file of its own."""

    kind: ClassVar[str] = "score"
    model: Step

    def run(self, work: Work) -> Outcome:
        tensors = load_file(work.checkpoint_of(self.model) / "model.safetensors")
        total = sum(float(tensor.double().sum()) for tensor in tensors.values())
        write_json_atomic(work.directory / "scores.json", {"total": total})
        return Outcome(metrics={"total": total})


def written(work: Work, tensors: dict[str, torch.Tensor]) -> Outcome:
    """The tensors as the step's checkpoint, published whole."""
    temporary = work.directory / ".checkpoint.made.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
    (temporary / "config.json").write_text('{"model_type": "llama"}')
    publish_directory(temporary, work.directory / "checkpoint")
    return Outcome(work.directory / "checkpoint")


def pipeline(stages: int = STAGES) -> list[Step]:
    """begin -> (tune -> merge -> score) as many times as there are stages; the targets."""
    merged: Step = Begin(0)
    targets: list[Step] = []
    for number in range(1, stages + 1):
        merged = Merge(WiseFT(0.5), {"previous": merged, "tuned": Tune(merged, number)}, actors=0)
        targets += [merged, Score(merged)]
    return targets


@dataclass
class Started:
    """Notes every step that begins to run, in a file that outlives the process."""

    path: Path

    def started(self, key: str) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{key}\n".encode())
        os.close(descriptor)

    def progress(self, *_: object) -> None:
        """Nobody looks."""

    def point(self, *_: object) -> None:
        """Nobody looks."""


def run(root: Path, stages: int = STAGES) -> None:
    """What the runner does, without Ray: every step that is needed, in order, in this process."""
    store = Store(root)
    for step in needed(pipeline(stages), store).values():
        perform(step, store, Started(root.parent / f"{root.name}.started"))


@dataclass
class Crashing:
    """Stands in for the operations, and ends the process at number `at`; within, no fsync waits for the disk."""

    at: int
    mode: str
    count: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __enter__(self) -> "Crashing":
        self.before = {name: getattr(os, name) for name in CHANGING}
        self.opening = builtins.open
        for name in CHANGING:
            setattr(os, name, self.shim(name, (lambda _: None) if name == "fsync" else self.before[name]))
        builtins.open = io.open = self.shim("open", self.opening)  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self.before.items():
            setattr(os, name, real)
        builtins.open = io.open = self.opening

    def shim(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The operation, counted."""

        def call(*arguments: Any, **keywords: Any) -> Any:
            if name == "open" and not writes(*arguments, **keywords):
                return real(*arguments, **keywords)
            here = next(self.count) == self.at
            if here and self.mode == "torn":
                tear(name, arguments[0])
            if here and self.mode == "before":
                os._exit(CRASHED)
            try:
                return real(*arguments, **keywords)
            finally:
                if here:
                    os._exit(CRASHED)

        return call


def writes(_: Any, mode: str = "r", *__: Any, **___: Any) -> bool:
    """Whether a file is opened to be written."""
    return any(letter in mode for letter in "wax+")


def tear(name: str, descriptor: Any) -> None:
    """Lose the second half of the file that was about to be pressed to disk, and end."""
    if name == "fsync" and stat.S_ISREG(os.fstat(descriptor).st_mode):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        os.truncate(path, os.path.getsize(path) // 2)
        os._exit(CRASHED)
    os._exit(NOTHING_TO_TEAR)


def crashed(root: Path, at: int, mode: str) -> int:
    """How a run ended, in a process of its own, that is to crash at operation `at`: CRASHED, NOTHING_TO_TEAR, 0 if it had fewer of them."""
    child = os.fork()
    if child == 0:
        try:
            with Crashing(at, mode):
                run(root)
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def result(root: Path) -> dict[str, str]:
    """Step -> SHA-256 over what it made."""
    return {path.parent.name: json.loads(path.read_text())["outputs"]["digest"] for path in sorted(root.glob("*/record.json"))}


def wrong(root: Path, expected: dict[str, str]) -> str:
    """What a finished run has that it should not have, or the other way round; empty if nothing."""
    if result(root) != expected:
        return "other bytes"
    started = Counter((root.parent / f"{root.name}.started").read_text().split())
    if max(started.values()) > 2:
        return f"a step ran {max(started.values())} times"
    left = [path for path in root.rglob("*") if path.name.endswith(".tmp") or path.name == "work"]
    return f"left behind: {left[0].relative_to(root)}" if left else ""


def main(directory: Path, every: int) -> None:
    """Crash, run again, compare; until no operation is left to crash."""
    torch.set_num_threads(1)
    with Crashing(-1, "before"):
        run(directory / "whole")
    expected, points, failures = result(directory / "whole"), Counter[str](), []
    for at, mode in ((at, mode) for at in itertools.count(1, every) for mode in MODES):
        root = directory / f"{at}-{mode}"
        ended = crashed(root, at, mode)
        if ended == 0:
            break
        if ended == NOTHING_TO_TEAR:
            continue
        points[mode] += 1
        try:
            with Crashing(-1, "before"):
                run(root)
            problem = wrong(root, expected) if ended == CRASHED else f"ended with {ended}"
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            failures.append([at, mode, problem])
        shutil.rmtree(root)
    print(json.dumps({"points": points, "steps": len(expected), "failures": failures}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
