"""One command, watched from start to end: wall seconds, CPU seconds, and how much memory its whole process tree held at most.

Memory is told apart as the kernel does (Linux, /proc/PID/status, sampled): anonymous memory is what the program asked for; file memory is
page cache that it has mapped, which the kernel takes back when it needs to; shared memory is what Ray keeps objects in.
"""

import ctypes
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

INTERVAL = 0.025
SHARES_INTERVAL = 0.1
"""Between samples of a tree of processes, whose shares take the kernel longer to tell."""
TREE_INTERVAL = 0.2
PR_SET_CHILD_SUBREAPER = 36
FIELDS = {"RssAnon:": "anonymous", "RssFile:": "file", "RssShmem:": "shared"}
SHARES = {"Pss_Anon:": "anonymous", "Pss_File:": "file", "Pss_Shmem:": "shared"}
"""The same of several processes: each page that they share is counted in parts, so that the sum counts it once."""
TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measurement:
    """What one run took. Memory in bytes: the largest sums over the process tree that were seen."""

    wall: float
    cpu: float
    anonymous: int
    file: int
    shared: int
    code: int
    output: str = field(repr=False, default="")


def measure(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    data_limit: int | None = None,
    timeout: float = 3600,
) -> Measurement:
    """Run `command` to its end. `data_limit` bounds the anonymous memory of each of its processes (RLIMIT_DATA, bytes).

    CPU seconds count user and system time of the command and its descendants: those waited for, as the kernel adds them up, or what was
    last seen of each where that is more (Ray's processes are waited for by nobody). Standard output and error come back as one text.
    """
    adopt_orphans()
    others = frozenset(descendants(os.getpid()))
    before = cpu_of_children()
    began = time.monotonic()
    process = subprocess.Popen(
        list(command),
        env=dict(environment) if environment is not None else None,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_DATA, (data_limit, data_limit))) if data_limit else None,
    )
    sampler = Sampler(others)
    sampler.start()
    try:
        text = process.communicate(timeout=timeout)[0].decode(errors="replace")
        wall = time.monotonic() - began
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        sampler.stop()
        end_orphans(others)
    cpu = max(cpu_of_children() - before, sampler.cpu)
    peak = sampler.peak
    return Measurement(wall, cpu, peak["anonymous"], peak["file"], peak["shared"], process.returncode, text)


class Sampler(threading.Thread):
    """Watches the descendants of this process that came after `others`: the measured command's."""

    def __init__(self, others: frozenset[int]) -> None:
        super().__init__(daemon=True)
        self.others = others
        self.peak = dict.fromkeys(FIELDS.values(), 0)
        self.seconds: dict[int, float] = {}
        self.ended = threading.Event()

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes seen, as last seen."""
        return sum(self.seconds.values())

    def run(self) -> None:
        """Sample until stopped."""
        tree: list[int] = []
        due = 0.0
        while not self.ended.wait(INTERVAL if len(tree) <= 1 else SHARES_INTERVAL):
            if time.monotonic() >= due:
                tree = [process for process in descendants(os.getpid()) if process not in self.others]
                due = time.monotonic() + TREE_INTERVAL
            self.sample(tree)

    def sample(self, tree: Sequence[int]) -> None:
        """Add up the tree's memory now."""
        sums = dict.fromkeys(self.peak, 0)
        file, fields = ("status", FIELDS) if len(tree) == 1 else ("smaps_rollup", SHARES)
        for process in tree:
            try:
                status = Path(f"/proc/{process}/{file}").read_text()
                self.seconds[process] = cpu_of(process)
            except OSError:
                continue  # it has ended
            for line in status.splitlines():
                name, _, rest = line.partition(":")
                if f"{name}:" in fields:
                    sums[fields[f"{name}:"]] += int(rest.split()[0]) * 1024
        for name, value in sums.items():
            self.peak[name] = max(self.peak[name], value)

    def stop(self) -> None:
        """End the thread."""
        self.ended.set()
        self.join()


def descendants(root: int) -> list[int]:
    """The processes below `root`, found by their parents."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                children.setdefault(int(stat_of(int(entry))[1]), []).append(int(entry))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def stat_of(process: int) -> list[str]:
    """The fields of /proc/PID/stat after the command's name: state, parent, ..."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def cpu_of(process: int) -> float:
    """CPU seconds of one running process, without its children."""
    fields = stat_of(process)
    return (int(fields[11]) + int(fields[12])) * TICK


def cpu_of_children() -> float:
    """CPU seconds of all descendants that have been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def adopt_orphans() -> None:
    """Make processes whose parents end become children of this one, so that none leaves the measured tree."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed; this benchmark needs Linux")


def end_orphans(others: frozenset[int], patience: float = 20) -> None:
    """Wait for every process the command left behind, and kill those that stay longer than `patience` seconds."""
    deadline = time.monotonic() + patience
    while left := [process for process in descendants(os.getpid()) if process not in others]:
        for process in left:
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            with suppress(ChildProcessError):  # one that has a parent yet
                os.waitpid(process, os.WNOHANG)
        time.sleep(0.01)
