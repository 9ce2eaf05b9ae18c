"""Which example comes when in a stage that also rehearses: the task at hand and the earlier ones in one order.

Indices go into the concatenation [current, earlier_1, earlier_2, ...]. As in `trainers.data.order`, the order belongs to the seed alone,
runs through the whole stage, and is the same for any number of workers. With a share of 0 it is exactly that of `StageOrder`.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from foundation.errors import ConfigError
from trainers.data.order import StageOrder, permutation
from trainers.spec import Batches
from trainers.strategies.replay import Mixing


class MixedOrder(StageOrder):
    """The index of every example of a stage that rehearses, into [current, earlier_1, ...]; see `mixed_batches`."""

    def __init__(
        self, counts: Sequence[int], batch_size: int, batches: Batches, seed: int, share: float, mixing: Mixing = Mixing.EQUAL
    ) -> None:
        check_mix(counts, batch_size, share)
        super().__init__(sum(counts), batch_size, batches, seed)
        self.counts = tuple(counts)
        self.share = share
        self.mixing = mixing

    def __iter__(self) -> Iterator[int]:
        for batch in mixed_batches(self.counts, self.batch_size, self.batches.steps, self.seed, self.share, self.mixing):
            yield from batch


def check_mix(counts: Sequence[int], batch_size: int, share: float) -> None:
    """Raise ConfigError for a mix that cannot be made."""
    if not 0 <= share <= 1:
        raise ConfigError(f"replay: the earlier tasks' share of a batch is {share}; give 0 to 1")
    if counts[0] < batch_size:
        raise ConfigError(f"replay: {counts[0]} current examples do not fill one batch of {batch_size}; lower batch_size")
    if share and (empty := [place for place, count in enumerate(counts) if place and count < 1]):
        raise ConfigError(
            f"replay: earlier task {empty[0]} of {len(counts) - 1} has no examples kept; keep at least one, or set the share to 0"
        )


def planned_examples(current: int, share: float) -> int:
    """How many examples to plan a stage with, so that an epoch shows every current example once beside a constant share of earlier ones.

    Raises ConfigError for a share of 1, which would never show them.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"replay: with a share of {share} an epoch never ends; give 0 to below 1, or set max_steps")
    return int(current / (1 - Fraction(str(share))))


def mixed_batches(
    counts: Sequence[int], batch_size: int, steps: int, seed: int, share: float, mixing: Mixing = Mixing.EQUAL
) -> Iterator[list[int]]:
    """The batches of a stage, one list of `batch_size` indices per step.

    `counts` are the numbers of examples of the current task and of each earlier one. After every step, as many earlier examples have come
    as the shares so far add up to, rounded to the nearest, so the share of the whole stage is exact. Each slot goes to the earlier task
    that is furthest behind its part of them, so the parts are exact in the long run too. Where in a batch they stand is drawn for that
    step. Each task's examples come in epochs of their own; the current task's are cut to whole batches, as `StageOrder` does. With a share
    of 0, or without earlier tasks, there are no earlier ones, whatever the mixing.
    """
    check_mix(counts, batch_size, share)
    firsts = [sum(counts[:place]) for place in range(len(counts))]
    current = endless(counts[0], f"{seed}", counts[0] // batch_size * batch_size)
    earlier = [endless(count, f"{seed}/earlier/{place}", count) for place, count in enumerate(counts[1:], 1)]
    weights = parts_of(counts[1:], mixing)
    given = [0] * len(weights)
    due, shown = Fraction(0), 0
    for step in range(steps):
        due += batch_size * earlier_share(share if weights else 0, mixing, Fraction(step, steps))
        taken = int(due + Fraction(1, 2)) - shown
        shown += taken
        places = set(permutation(batch_size, f"places/{seed}/{step}")[:taken]) if taken else ()
        batch = []
        for place in range(batch_size):
            task = next_task(weights, given) if place in places else 0
            batch.append(firsts[task] + next(earlier[task - 1] if task else current))
        yield batch


def earlier_share(share: float, mixing: Mixing, progress: Fraction) -> Fraction:
    """The earlier tasks' share of the batch at `progress`, 0 to below 1 of the stage.

    `share` throughout, or, adaptively, share x (1.5 - progress), at most 1: more while the current task is new, less later.
    """
    asked = Fraction(str(share))
    return min(Fraction(1), asked * (Fraction(3, 2) - progress)) if mixing is Mixing.ADAPTIVE else asked


def parts_of(counts: Sequence[int], mixing: Mixing) -> list[int]:
    """Each earlier task's part, in whole numbers: alike, or proportionally the mean of alike and its share of all sizes."""
    if mixing is Mixing.PROPORTIONAL:
        return [count * len(counts) + sum(counts) for count in counts]
    return [1] * len(counts)


def next_task(weights: Sequence[int], given: list[int]) -> int:
    """Which earlier task (from 1) the next slot goes to: the one furthest behind its part. Counts it in `given`."""
    slots, whole = sum(given) + 1, sum(weights)
    task = max(range(len(weights)), key=lambda task: (weights[task] * slots - given[task] * whole, -task))
    given[task] += 1
    return task + 1


def endless(count: int, address: str, taken: int) -> Iterator[int]:
    """Epoch after epoch of fresh permutations, the first `taken` of each."""
    epoch = 0
    while True:
        yield from permutation(count, f"order/{address}/{epoch}")[:taken]
        epoch += 1
