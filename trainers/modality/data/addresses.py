"""Random numbers that belong to a place: a showing of an example, and what they are used for there. No global state."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from math import gcd

from numpy.random import PCG64, Generator

from trainers.data.order import StageOrder, epoch_order
from trainers.spec import Batches


def generator(address: str) -> Generator:
    """Random numbers that belong to `address` alone."""
    return Generator(PCG64(int.from_bytes(sha256(address.encode()).digest()[:16])))


@dataclass(frozen=True)
class Showing:
    """Example `index` as it is shown in `epoch`."""

    epoch: int
    index: int

    @classmethod
    def of(cls, number: int, examples: int) -> "Showing":
        """The showing that an order over `examples` examples calls `number`: epoch * examples + index."""
        return cls(*divmod(number, examples))

    def draws(self, seed: int, use: str) -> Generator:
        """The random numbers of this showing for one use."""
        return generator(f"modality/{seed}/{use}/{self.epoch}/{self.index}")


class ShowingOrder(StageOrder):
    """The order of a stage as numbers of showings, so that whoever makes a batch knows the epoch: see `Showing.of`.

    The examples come exactly as `StageOrder` has them. `examples` is how many numbers there may be: the data set of a DataLoader over this
    order is `range(order.examples)`.
    """

    def __init__(self, examples: int, batch_size: int, batches: Batches, seed: int) -> None:
        self.own = examples
        self.epoch_length = batches.steps_per_epoch * batch_size
        epochs = -(-batches.steps // batches.steps_per_epoch)
        super().__init__(epochs * examples, batch_size, batches, seed)

    def __iter__(self) -> Iterator[int]:
        left = len(self)
        epoch = 0
        while left:
            taken = min(left, self.epoch_length)
            yield from (epoch * self.own + index for index in epoch_order(self.own, self.seed, epoch)[:taken])
            left -= taken
            epoch += 1


def beside(number: int, examples: int, seed: int) -> Showing:
    """Which of the `examples` of another stream is shown beside showing `number`.

    As the numbers run, the stream comes whole, then whole again, each time in another order: a multiplication by a number without common
    divisor, so that nothing has to be kept of a stream of any size. It follows from the number alone.
    """
    turn, place = divmod(number, examples)
    rng = generator(f"modality/{seed}/stream/{examples}/{turn}")
    step = int(rng.integers(1, examples + 1))
    while gcd(step, examples) != 1:
        step += 1
    return Showing(turn, (place * step + int(rng.integers(examples))) % examples)
