"""The examples of a stage: those of its own task and, for a strategy that rehearses, what is kept of the tasks before it."""

from collections.abc import Sequence
from typing import overload

from foundation.errors import ConfigError
from tasks.outline import Outline, has_images, outline
from tasks.task import Example, Split, Task
from trainers.data.lengths import Alike
from trainers.data.mixing import MixedOrder, planned_examples
from trainers.data.order import StageOrder
from trainers.spec import Batches, Grouping, TrainSpec
from trainers.strategies.replay import Replay
from trainers.strategy import Strategy


class Kept(Sequence[Example]):
    """Those examples of a sequence that stand at `places`; one is read when it is asked for."""

    def __init__(self, examples: Sequence[Example], places: Sequence[int]) -> None:
        self.examples = examples
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        return Kept(self.examples, self.places[index]) if isinstance(index, slice) else self.examples[self.places[index]]

    def outline(self, index: int) -> Outline:
        """What example `index` says, and the sizes of its images."""
        return outline(self.examples, self.places[index])

    def has_images(self, index: int) -> bool:
        """Whether example `index` shows an image."""
        return has_images(self.examples, self.places[index])


def rehearsed(strategy: Strategy, earlier: Sequence[Task], spec: TrainSpec) -> list[Sequence[Example]]:
    """What a stage rehearses of each earlier task, oldest first. ConfigError where the strategy would not look at it."""
    if not earlier:
        return []
    if not isinstance(strategy, Replay):
        raise ConfigError(f"training: earlier tasks are given, but {strategy!r} does not rehearse; leave them out, or use replay")
    if spec.grouping is not Grouping.NONE:
        raise ConfigError(f"training: replay mixes its batches itself; leave out grouping {spec.grouping.value}, or use another strategy")
    whole = [task.examples(Split.TRAIN, spec.samples) for task in earlier]
    buffers = strategy.buffers([len(examples) for examples in whole], spec.seed)
    return [Kept(examples, places) for examples, places in zip(whole, buffers, strict=True)]


def planned(strategy: Strategy, current: int, earlier: Sequence[Sequence[Example]]) -> int:
    """How many examples make an epoch: the stage's own, and what is rehearsed beside them."""
    return planned_examples(current, strategy.share) if isinstance(strategy, Replay) and earlier else current


def order_of(strategy: Strategy, spec: TrainSpec, batches: Batches, counts: Sequence[int], alike: Alike) -> StageOrder:
    """Which example comes when, as indices into the stage's own examples followed by those of each earlier task; `counts`: how many."""
    if isinstance(strategy, Replay) and len(counts) > 1 and strategy.share > 0:
        return MixedOrder(counts, spec.batch_size, batches, spec.seed, strategy.share, strategy.mixing)
    return StageOrder(counts[0], spec.batch_size, batches, spec.seed, alike.lengths, alike.kinds)


def own_samples(order: StageOrder, own: int) -> int:
    """How many examples of an order are the stage's own: those whose index is below `own`. An example that comes twice counts twice."""
    return sum(index < own for index in order) if isinstance(order, MixedOrder) else len(order)
