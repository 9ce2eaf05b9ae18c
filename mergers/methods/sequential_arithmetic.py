"""Sequential arithmetic: from the base a step towards each source, one after the other.

    e_0 = base,    e_k = e_{k-1} + scale * (x_k - e_{k-1}),    W = e_K
Each step is measured from where the one before led, not from the base: so the order of the sources counts, and with scale 1 the last source
is the result. This is what the program published with arXiv 2304.14933 computes under the name of modality arithmetic, because its sum and
its base share one memory; the formula of the paper is `task_arithmetic`. It is here so that its results can be had again, under a name of
its own.

Worked out, with the weights of an exponential moving average of decay 1 - scale whose oldest member is the base (`ema`):
    W = (1 - scale)^K base + sum_k scale (1 - scale)^(K-k) x_k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from mergers.merger import Inputs, Method, Need
from mergers.methods.deltas import anchor
from mergers.methods.ema import ema_weights
from mergers.methods.linear import average

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SequentialArithmetic(Method):
    """A step of `scale` towards each source in turn, from the base on. Elementwise, float32, one cast."""

    scale: float = 1.0

    base: ClassVar[Need] = Need.REQUIRED

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there is a source and 0 <= scale <= 1."""
        if not source_names:
            raise ConfigError("sequential arithmetic needs at least 1 checkpoint besides the base, got none; add a source")
        if not (math.isfinite(self.scale) and 0 <= self.scale <= 1):
            raise ConfigError(f"scale is {self.scale}; it is the share of the way to each source in turn and must lie between 0 and 1")

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """The weight of each source, in words."""
        weights = ema_weights(1 - self.scale, len(source_names) + 1)
        return tuple(f"step {step}, weight {weight:.6g} in the end" for step, weight in enumerate(weights[1:], start=1))

    def merge(self, inputs: Inputs) -> Tensor:
        """The last step's piece, over the sources that hold it."""
        return average((anchor(inputs), *inputs.tensors), ema_weights(1 - self.scale, len(inputs.tensors) + 1))
