"""What all workers have, on each of them: for objectives that compare every pair of a batch with every other.

Workers average their gradients (DDP). A loss that each of them computes over everything that was gathered is the same number on all, but
its gradient reaches each worker's own share alone, whence it is multiplied by the number of workers: the average is then the gradient of
one process with the whole batch. A parameter that the loss reads directly (a temperature) has the right gradient on each worker already.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainers.workers import together


def workers() -> int:
    """How many there are."""
    return dist.get_world_size() if together() else 1


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if together() else 0


def gathered(own: Tensor) -> Tensor:
    """[N, ...] of all workers, by rank, from [N / workers, ...] of each. Only this worker's own rows carry a gradient."""
    return own if workers() == 1 else _Gathered.apply(own)


def own_rows(own: Tensor) -> slice:
    """Where the rows of `own` stand in `gathered(own)`."""
    return slice(rank() * len(own), (rank() + 1) * len(own))


class _Gathered(torch.autograd.Function):
    """All workers' rows; backward gives this worker's own, times the number of workers, over which DDP averages."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        ctx.rows = own_rows(own)
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(workers())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0][ctx.rows] * workers()
