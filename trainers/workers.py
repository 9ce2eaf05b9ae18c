"""The workers of a stage: how many there are, what the first decides for all, and arithmetic that gives the same bits each time.

A worker is a process with its own copy of the model. Ray Train and torchrun say how many there are by WORLD_SIZE; without it there is one.
"""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist

Decision = TypeVar("Decision")


def world_size() -> int:
    """How many workers run this stage."""
    return dist.get_world_size() if together() else int(os.environ.get("WORLD_SIZE", "1"))


def together() -> bool:
    """Whether a process group is up."""
    return dist.is_available() and dist.is_initialized()


def leave_at_exit() -> None:
    """Take the process group down when this process ends.

    For whoever started it. A process that ends with its group up destroys running threads, and now and then dies of that (SIGABRT,
    "terminate called without an active exception") when all its work is done.
    """
    atexit.register(lambda: dist.destroy_process_group() if together() else None)


def first_decides(decide: Callable[[], Decision]) -> Decision:
    """What `decide` gives on the first worker, on all of them. What it raises there is raised on all of them."""
    if not together() or dist.get_world_size() == 1:
        return decide()
    told: list[Decision | Exception | None] = [None]
    if dist.get_rank() == 0:
        try:
            told[0] = decide()
        except Exception as error:  # told to the others, who would wait for ever, and raised on every worker below
            told[0] = error
    dist.broadcast_object_list(told, src=0)
    if isinstance(told[0], Exception):
        raise told[0]
    return told[0]  # type: ignore[return-value]


def summed(values: Sequence[int], device: torch.device) -> list[int]:
    """The sums of `values` over all workers, which call this with equally many."""
    if not together():
        return list(values)
    totals = torch.tensor(values, device=device)
    dist.all_reduce(totals)
    return totals.tolist()


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Run with this many threads and, on a CPU, deterministic kernels only; put both back afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(not torch.cuda.is_available())
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
