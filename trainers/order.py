"""Which example comes when: an order that belongs to (seed, epoch) alone.

The sampler runs through the whole stage at once, so the loop sees one long epoch and a resume has one number to skip. Batch k of the
stage holds the same examples for any number of workers and any micro batch: workers take micro batches in turn from the one order.
"""

from collections.abc import Iterator
from hashlib import sha256

import torch
from torch.utils.data import Sampler

from trainers.spec import Batches


class StageOrder(Sampler[int]):
    """The index of every example of the stage: whole batches, each epoch a fresh permutation cut to whole batches."""

    def __init__(self, examples: int, batch_size: int, batches: Batches, seed: int) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed

    def __len__(self) -> int:
        return self.batches.steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        left = len(self)
        epoch = 0
        while left:
            taken = min(left, self.batches.steps_per_epoch * self.batch_size)
            yield from epoch_order(self.examples, self.seed, epoch)[:taken]
            left -= taken
            epoch += 1


def epoch_order(examples: int, seed: int, epoch: int) -> list[int]:
    """A permutation of the examples, drawn for this seed and epoch only."""
    address = sha256(f"order/{seed}/{epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(address[:8]) >> 1)
    return torch.randperm(examples, generator=generator).tolist()
