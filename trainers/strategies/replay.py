"""Replay: while a new task is learned, part of every batch comes from the tasks before it (Robins 1995; Chaudhry et al. 2019).

Each earlier task leaves a buffer: `count` of its training examples, or the share `ratio` of them, drawn once for (seed, task) and so the
same in every later stage. Nothing is copied: a buffer is a list of indices into the task's own training examples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from foundation.hints import unknown
from trainers.strategy import Adaptation, Context

if TYPE_CHECKING:
    from transformers import PreTrainedModel


USUAL_RATIO = 0.1


class Mixing(StrEnum):
    """How the earlier tasks share what is theirs of a batch: alike, by the size of their buffers, or ever less as the stage goes on."""

    EQUAL = "equal"
    PROPORTIONAL = "proportional"
    ADAPTIVE = "adaptive"


@dataclass(frozen=True)
class Replay:
    """Plain fine-tuning on batches of which `share` are examples of earlier tasks. The first stage has none and is plain.

    `share` 0 is plain fine-tuning. Without `ratio` and `count` a tenth of each task is kept. Raises ConfigError for a share outside [0, 1),
    for both `ratio` and `count`, and for those that keep nothing.
    """

    share: float = 0.25
    ratio: float | None = None
    count: int | None = None
    mixing: Mixing = Mixing.EQUAL
    rehearses: ClassVar[bool] = True
    reads_fisher: ClassVar[bool] = False
    adds_weights: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.mixing not in list(Mixing):
            raise ConfigError(f"replay: {unknown('mixing', str(self.mixing), [each.value for each in Mixing])}")
        object.__setattr__(self, "mixing", Mixing(self.mixing))
        if not 0 <= self.share < 1:
            raise ConfigError(f"replay: share is {self.share}; give the part of a batch that is rehearsed, from 0 to below 1")
        if self.ratio is not None and self.count is not None:
            raise ConfigError("replay: give either ratio, the share of each task's examples that is kept, or count, how many; not both")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise ConfigError(f"replay: ratio is {self.ratio}; give a share above 0, at most 1")
        if self.count is not None and self.count < 1:
            raise ConfigError(f"replay: count is {self.count}; give 1 or more")

    def start(self, model: "PreTrainedModel", context: Context) -> Adaptation:
        """Freeze all but the stage's parts; the batches make the difference."""
        from models.parts import set_trainable

        return Adaptation(trained=set_trainable(model, context.spec.parts))

    def memory(self, weights: int, trained: int) -> int:
        """Nothing on the device: examples are read when a batch needs them."""
        return 0

    def kept(self, place: int, examples: int, seed: int) -> list[int]:
        """Which of the `examples` of the stream's task number `place` (from 0) are kept: sorted indices, drawn for (seed, place) alone.

        At least one is kept, and no more than there are.
        """
        import torch

        wanted = self.count if self.count is not None else math.ceil((self.ratio or USUAL_RATIO) * examples)
        address = sha256(f"replay/{seed}/{place}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(address[:8]) >> 1)
        return sorted(torch.randperm(examples, generator=generator)[: max(1, min(wanted, examples))].tolist())

    def buffers(self, sizes: Sequence[int], seed: int) -> list[list[int]]:
        """The buffer of each earlier task, oldest first; `sizes` are their numbers of training examples."""
        return [self.kept(place, size, seed) for place, size in enumerate(sizes)]
