"""Work items on processes of this machine, forked from one that has the libraries loaded and does nothing else.

Threads would share one interpreter lock, and the steps of a block are so short that they spend their time waiting for it: four threads
merge no faster than one. That one process is started by `prepare`, as soon as the plan tells what workers need, and the workers that it
forks begin with everything loaded: torch, or compiled code, which is there in a third of the time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, forkserver
from types import TracebackType
from typing import TYPE_CHECKING

from foundation.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from mergers.engine.layout import WorkItem
    from mergers.engine.outcome import ItemOutcome

LOADED = ["numpy", "mergers.engine.shard", "mergers.engine.rounds", "mergers.table", "mergers.engine.processes"]


def prepare(torch: bool) -> None:
    """Have the libraries loaded in the process that workers are forked from, torch or compiled code; returns at once."""
    multiprocessing.get_context("forkserver").set_forkserver_preload([*LOADED, "torch" if torch else "mergers.kernels.ready"])
    forkserver.ensure_running()


class Processes:
    """Runs work items on `count` processes, as a context manager; `torch` says whether they will need it."""

    def __init__(self, count: int, torch: bool = True) -> None:
        if count < 1:
            raise ConfigError(f"{count} processes cannot do anything; give at least 1")
        self.count = count
        self.torch = torch
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Processes:
        prepare(self.torch)
        self.pool = ProcessPoolExecutor(self.count, multiprocessing.get_context("forkserver"), initializer=begin)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self.pool is not None
        self.pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[WorkItem], ItemOutcome], items: Sequence[WorkItem]) -> Iterator[ItemOutcome]:
        """The outcomes, in order of completion."""
        if self.pool is None:
            raise RuntimeError("Processes must be entered (with ...) before they are given work")
        futures: list[Future[ItemOutcome]] = []
        try:
            futures += [self.pool.submit(function, item) for item in items]
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise ResourceError(
                "a worker process was killed, as the system does when memory runs out; merge with fewer processes, or free memory"
            ) from error
        finally:
            wait([future for future in futures if not future.cancel()])  # none may be running any more


def begin() -> None:
    """Make a forked process a worker: one torch thread, Ctrl-C left to its parent, an end with its parent's, however that comes."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of a torch that is loaded later
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait for the parent's end, then end at once: a killed merge must leave nobody who goes on writing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
