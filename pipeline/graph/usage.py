"""What a step takes of its machine: looks at the node and at the step's own processes, kept beside its results with their time stamps.

A thread looks, every so many seconds, at the beginning and at the end; what goes wrong in it is told once in the file and never reaches the
work. Where the looks are kept, and what they come to: `usage_files.py`.
"""

import json
import platform
import threading
import time
import uuid
from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.graph.gpus import gpu_memory, gpu_peak, gpu_utilization, reset_gpu_peak
from pipeline.graph.history import end_line
from pipeline.graph.usage_files import STEP, usage_file

PATIENCE = 5.0
"""Seconds that a step waits for its last look, which a dead network disk could hold up."""
SHORTEST = 0.05
"""Seconds between two looks from which on they can tell how busy the machine was: the kernel counts hundredths."""
BETWEEN_ITEMS = 0.5
"""Seconds between two looks that a worker takes after its items; the thread looks besides."""


@dataclass(frozen=True)
class Sampling:
    """How often a step is looked at, and where that is kept; `seconds` 0: not at all. Workers and actors of the step are given it."""

    directory: Path = Path()
    seconds: float = 0
    node: str = ""  # where the step is performed

    def of(self, role: str) -> "Usage":
        """The watch over another process of the step."""
        return Usage(self, role)


NONE = Sampling()
_CURRENT: ContextVar[Sampling] = ContextVar("sampling", default=NONE)


def sampling() -> Sampling:
    """How the step that is running here is looked at, to be handed to its workers."""
    return _CURRENT.get()


@dataclass
class Usage:
    """Looks at this process, its children and, where it is another than the step's, its node, while it is entered."""

    sampling: Sampling
    role: str = STEP
    failure: str = ""
    _identity: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    _ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None
    _token: Token[Sampling] | None = None
    _looker: "_Looker | None" = None
    _looked: float = 0
    _opened: bool = False

    def __enter__(self) -> "Usage":
        self._token = _CURRENT.set(self.sampling)
        if self.sampling.seconds:
            thread = threading.Thread(target=self._watch, name="usage", daemon=True)
            try:
                thread.start()
                self._thread = thread
            except RuntimeError as error:  # the machine has no room for one more
                self.failure = str(error)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._token is not None:
            _CURRENT.reset(self._token)
        if self._thread is not None:
            self._ended.set()
            self._thread.join(PATIENCE)

    def item_done(self) -> None:
        """A worker that may be ended at any moment has finished something: look now, unless it was just done."""
        if self._thread is not None and time.monotonic() - self._looked > BETWEEN_ITEMS:
            self._look()

    def _watch(self) -> None:
        self._look()
        while not self._ended.wait(self.sampling.seconds):
            self._look()
        self._look()

    def _look(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # the thread and the worker look at one time
        try:
            self._looked = time.monotonic()
            if self._looker is None:
                self._looker = _Looker(self.role, self.sampling)
            self._append(self._looker.look())
        except Exception as error:  # of whatever kind: the work must not end because of it
            self._fail(error)
        finally:
            self._lock.release()

    def _fail(self, error: Exception) -> None:
        """Tell the first failure, in the file if that can be written."""
        if not self.failure:
            self.failure = f"{type(error).__name__}: {error}"
            try:
                self._append({"error": self.failure})
            except OSError:
                return  # the file is what failed; the step's record tells it

    def _append(self, content: Mapping[str, Any]) -> None:
        path = usage_file(self.sampling.directory, self.role)
        if not self._opened:  # an attempt that was killed may have left half a line
            end_line(path)
            self._opened = True
        with open(path, "a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), "process": self._identity, **content}) + "\n")


class _Looker:
    """What one look at a process and its node gives, relative to when it was made."""

    def __init__(self, role: str, sampling: Sampling) -> None:
        import psutil

        self.role, self.directory = role, sampling.directory
        self.with_node = role == STEP or platform.node() != sampling.node
        self.node_place = "system" if role == STEP else f"system/{role}/node"
        self.process = psutil.Process()
        self.before = self.last = _cpu_seconds([self.process])
        self.last_time = time.monotonic()
        self.mark = _own_mark()
        self.peak, self.gpu_peak, self.used = 0, 0, 0.0
        self.node_before = _node_seconds()
        reset_gpu_peak()

    def look(self) -> dict[str, Any]:
        tree = [self.process, *self.process.children(recursive=True)]
        now, seconds = time.monotonic(), _cpu_seconds(tree)
        memory, mark = sum(_memory(process) for process in tree), _own_mark()
        self.peak = max(self.peak, memory, mark if mark > self.mark else 0)
        self.gpu_peak = max(self.gpu_peak, gpu_peak())
        self.used = max(self.used, seconds - self.before)
        place = f"system/{self.role}"
        values = {f"{place}/memory_bytes": float(memory)}
        values |= self.node() if self.with_node else {}
        if now - self.last_time > SHORTEST:
            values |= self.percentages(seconds, now)
        found = {"memory_bytes": gpu_memory(), "utilization_percent": gpu_utilization()}
        values |= {f"{place}/gpu_{gpu}/{what}": value for what, each in found.items() for gpu, value in each.items()}
        so_far = {"cpu_seconds": round(self.used, 3), "peak_memory_bytes": self.peak}
        return {"values": values, "so_far": so_far | ({"gpu_peak_bytes": self.gpu_peak} if self.gpu_peak else {})}

    def node(self) -> dict[str, float]:
        import psutil

        place, memory = self.node_place, psutil.virtual_memory()
        return {
            f"{place}/memory_bytes": float(memory.total - memory.available),
            f"{place}/disk_free_bytes": float(psutil.disk_usage(str(self.directory)).free),
        }

    def percentages(self, seconds: float, now: float) -> dict[str, float]:
        """What worked since the last look: 100 is one processor for the step's own processes, all processors for the node."""
        found = {f"system/{self.role}/cpu_percent": 100 * (seconds - self.last) / (now - self.last_time)}
        node = _node_seconds()
        busy, whole = (after - before for after, before in zip(node, self.node_before, strict=True))
        if self.with_node and whole > 0:
            found[f"{self.node_place}/cpu_percent"] = min(100.0, 100 * busy / whole)  # the kernel's iowait may run backwards
        self.last, self.last_time, self.node_before = seconds, now, node
        return {key: round(max(0.0, value), 1) for key, value in found.items()}


def _cpu_seconds(tree: list[Any]) -> float:
    """Of processes and of those of their children that they have waited for."""
    import psutil

    total = 0.0
    for process in tree:
        try:
            total += sum(process.cpu_times()[:4])  # user, system, and both of the children
        except psutil.Error:
            continue  # it has ended since the tree was read
    return total


def _node_seconds() -> tuple[float, float]:
    """Seconds that the node's processors have worked since it started, and all that they had."""
    import psutil

    times = psutil.cpu_times()
    whole = sum(times) - getattr(times, "guest", 0) - getattr(times, "guest_nice", 0)  # which are in user and nice, too
    return whole - times.idle - getattr(times, "iowait", 0), whole


def _memory(process: Any) -> int:
    import psutil

    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0  # it has ended since the tree was read


def _own_mark() -> int:
    """The most memory that this process has ever held, in bytes, as the kernel keeps it (Linux counts in KiB); 0 on other systems."""
    if platform.system() != "Linux":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
