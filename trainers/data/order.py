"""Which example comes when: an order that belongs to (seed, epoch) alone.

A sampler runs through the whole stage at once, so the loop sees one long epoch and a resume has one number to skip. Batch k of the stage
holds the same examples for any number of workers and any micro batch: workers take micro batches in turn from the one order.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256

import torch
from torch.utils.data import Sampler

from trainers.spec import Batches

MEGA = 50
"""Batches in a mega batch: enough for like lengths, few enough that an example still meets others from epoch to epoch."""


class StageOrder(Sampler[int]):
    """The index of every example of the stage: whole batches, each epoch a fresh permutation cut to whole batches.

    With `lengths`, a batch holds examples of like length, and with `kinds` besides, examples of one kind; see `grouped`.
    """

    def __init__(
        self,
        examples: int,
        batch_size: int,
        batches: Batches,
        seed: int,
        lengths: Sequence[int] | None = None,
        kinds: Sequence[bool] | None = None,
    ) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.lengths = lengths
        self.kinds = kinds

    def __len__(self) -> int:
        return self.batches.steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        left = len(self)
        epoch = 0
        while left:
            order = epoch_order(self.examples, self.seed, epoch)
            if self.lengths is not None:
                order = grouped(order, self.lengths, self.kinds, self.batch_size, self.seed, epoch)
            taken = min(left, self.batches.steps_per_epoch * self.batch_size)
            yield from order[:taken]
            left -= taken
            epoch += 1


def epoch_order(examples: int, seed: int, epoch: int) -> list[int]:
    """A permutation of the examples, drawn for this seed and epoch only."""
    return permutation(examples, f"order/{seed}/{epoch}")


def permutation(count: int, address: str) -> list[int]:
    """A permutation of 0 to count - 1 that belongs to `address`."""
    generator = torch.Generator().manual_seed(int.from_bytes(sha256(address.encode()).digest()[:8]) >> 1)
    return torch.randperm(count, generator=generator).tolist()


def grouped(
    order: Sequence[int], lengths: Sequence[int], kinds: Sequence[bool] | None, batch_size: int, seed: int, epoch: int
) -> list[int]:
    """The examples of `order` in whole batches of like length, `len(order) // batch_size` of them; the rest is left out.

    The order is cut into mega batches of at most MEGA batches, each is sorted by length, longest first, cut into batches, and the batches
    are shuffled. With `kinds`, each kind is cut by itself; only what is left over of each kind shares the last batches.
    """
    parts: list[list[int]] = []
    left: list[int] = []
    for kind in sorted(set(kinds)) if kinds is not None else (None,):
        own = [index for index in order if kinds is None or kinds[index] == kind]
        whole = len(own) // batch_size * batch_size
        mega = max(1, min(MEGA, len(own) // (4 * batch_size))) * batch_size
        for start in range(0, whole, mega):
            alike = sorted(own[start : min(start + mega, whole)], key=lambda index: -lengths[index])
            parts += [alike[first : first + batch_size] for first in range(0, len(alike), batch_size)]
        left += own[whole:]
    parts += [left[first : first + batch_size] for first in range(0, len(left) - batch_size + 1, batch_size)]
    return [index for place in permutation(len(parts), f"batches/{seed}/{epoch}") for index in parts[place]]
