"""Work items on processes of this machine, forked from this one once its libraries are loaded.

Threads would share one interpreter lock, and the steps of a block are so short that they spend their time waiting for it: four threads
merge no faster than one. A forked process begins with everything imported, so starting it costs milliseconds.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TYPE_CHECKING

from foundation.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from mergers.engine.layout import WorkItem
    from mergers.engine.shard import ItemOutcome

KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG of linux/prctl.h


class Processes:
    """Runs work items on `count` processes; a context manager, to be entered before any thread is started."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ConfigError(f"{count} processes cannot do anything; give at least 1")
        self.count = count
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Processes:
        import torch

        torch.set_num_threads(1)
        self.pool = ProcessPoolExecutor(self.count, multiprocessing.get_context("fork"), initializer=begin)
        self.pool.submit(begin).result()  # all of them are forked at the first call: now
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
    """Prepare a forked process: it leaves Ctrl-C to its parent, and ends with it, however that ends (on Linux)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(KILL_WITH_PARENT, signal.SIGKILL)
