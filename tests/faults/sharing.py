"""Several processes at once on one store: each step is run by one of them, and where that one is killed, another takes the step over.

Run as a program, because its processes are forks. Prints one line of JSON.

    python sharing.py DIRECTORY ROUNDS
"""

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from crash_points import result, run

from pipeline.graph.perform import perform
from pipeline.step import Outcome, Step, Work
from pipeline.store import Store

LONGEST_SECONDS = 120


@dataclass(frozen=True, eq=False, repr=False)
class Waits(Step):
    """Whoever begins it first waits to be killed; the next one writes it."""

    kind: ClassVar[str] = "waits"
    name: str

    def run(self, work: Work) -> Outcome:
        with open(work.directory.parent / "begun", "a") as file:
            file.write(f"{os.getpid()} {time.monotonic()}\n")
        half = work.directory / ".output.tmp"
        if not half.exists() and not (work.scratch / "first").exists():
            (work.scratch / "first").touch()
            half.write_text("half")
            time.sleep(LONGEST_SECONDS)
        (work.directory / "output").write_text(self.name)
        return Outcome()


def at_once(count: int, work: Any) -> list[int]:
    """The processes that do `work`, all let go at the same moment."""
    ready, go = os.pipe()
    processes = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            try:
                os.close(go)
                os.read(ready, 1)  # returns when the parent closes its end
                work()
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        processes.append(child)
    os.close(ready)
    os.close(go)
    return processes


def ended(process: int) -> int:
    """The exit code of a process, once it has one."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def shared(directory: Path, count: int, expected: dict[str, str]) -> int:
    """How many steps ran more or less than once, or failed, where so many processes run the same pipeline."""
    root = directory / "shared"
    codes = [ended(process) for process in at_once(count, lambda: run(root))]
    started = Counter((directory / "shared.started").read_text().split())
    wrong = sum(codes) + (result(root) != expected) + sum(times != 1 for times in started.values()) + len(started.keys() ^ expected.keys())
    wrong += len([path for path in root.rglob("*") if path.name.endswith(".tmp") or path.name == "work"])
    shutil.rmtree(root)
    (directory / "shared.started").unlink()
    return wrong


def taken_over(directory: Path) -> tuple[float, int]:
    """Seconds from the death of the one that held a step until the next began it, and how many things went wrong."""
    root, step = directory / "taken", Waits("x")
    processes = at_once(3, lambda: perform(step, Store(root)))
    begun = root / "begun"
    while not (begun.exists() and begun.read_text().endswith("\n")):
        time.sleep(0.01)
    owner = int(begun.read_text().split()[0])
    killed_at = time.monotonic()
    os.kill(owner, signal.SIGKILL)
    codes = sorted(ended(process) for process in processes)
    lines = begun.read_text().splitlines()
    seconds = float(lines[-1].split()[1]) - killed_at
    left = [path for path in Store(root).directory(step).iterdir() if path.name not in ("output", "record.json")]
    shutil.rmtree(root)
    return seconds, int(codes != [-signal.SIGKILL, 0, 0]) + int(len(lines) != 2) + len(left)


def main(directory: Path, rounds: int) -> None:
    """Two processes, four processes, and a killed owner, so many times."""
    torch.set_num_threads(1)
    run(directory / "whole")
    expected = result(directory / "whole")
    wrong, takeovers = 0, []
    for _ in range(rounds):
        wrong += shared(directory, 2, expected) + shared(directory, 4, expected)
        seconds, problems = taken_over(directory)
        takeovers.append(seconds)
        wrong += problems
    print(json.dumps({"rounds": rounds, "wrong": wrong, "longest takeover": round(max(takeovers), 2)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
