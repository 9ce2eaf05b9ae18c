"""Processes that need no start of their own: forked from one that has the training libraries loaded and has not used them.

Each is a process like any other: with its own memory, environment, output and random numbers, and to be killed by itself. Loading the
libraries anew takes each about five seconds, which is more than what most of them then do.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOADED = ("trainers.learn", "trainers.strategies.table", "models.digits_llava", "models.modality_experts", "tasks.digits", "peft")

PARENT = """
import importlib, json, os, select, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
requests, started = open(0, "rb", buffering=0, closefd=False), {}
while True:
    if select.select([requests], [], [], 0.01 if started else None)[0]:
        line = requests.readline()
        if not line:
            break
        asked = json.loads(line)
        if number := os.fork():
            started[number] = asked["place"]
            print(number, flush=True)
        else:
            for descriptor, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(f"{asked['place']}/{name}", os.O_WRONLY | os.O_CREAT), descriptor)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            import random, numpy, torch
            for draw in (random.seed, numpy.random.seed, torch.seed):
                draw()  # no two processes begin with the same random numbers
            os.environ.clear()
            os.environ.update(asked["environment"])
            sys.argv[1:] = asked["arguments"]
            exec(asked["program"], globals())
            break
    for number in list(started):
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            place = started.pop(number)
            with open(f"{place}/status.tmp", "w") as file:
                file.write(str(os.waitstatus_to_exitcode(status)))
            os.rename(f"{place}/status.tmp", f"{place}/status")
"""


@dataclass
class Forked:
    """One such process, used like a `subprocess.Popen` whose output is text."""

    pid: int
    place: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and (self.place / "status").exists():
            self.returncode = int((self.place / "status").read_text())
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        latest = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > latest:
                raise TimeoutError(f"process {self.pid} has not ended after {timeout} s")
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """What it printed and what it complained of, once it has ended."""
        self.wait(timeout)
        return (self.place / "out").read_text(), (self.place / "err").read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


class Forking:
    """Forks processes from its own, which it starts at the first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.parent: subprocess.Popen[str] | None = None

    def __call__(self, program: str, arguments: list[str], environment: dict[str, str]) -> Forked:
        """Starts a process that runs the text `program` as `python -c` would."""
        if self.parent is None:
            settings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, "-c", PARENT, *LOADED]
            self.parent = subprocess.Popen(command, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.parent.stdin
        assert self.parent.stdout
        place = Path(tempfile.mkdtemp(dir=self.directory))
        asked = {"place": str(place), "program": program, "arguments": arguments, "environment": environment}
        self.parent.stdin.write(json.dumps(asked) + "\n")
        self.parent.stdin.flush()
        return Forked(int(self.parent.stdout.readline()), place)


@contextmanager
def forking(directory: Path) -> Iterator[Forking]:
    """The parent ends with it."""
    forks = Forking(directory)
    try:
        yield forks
    finally:
        if forks.parent:
            forks.parent.communicate(timeout=60)
