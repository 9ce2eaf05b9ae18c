"""The exponential moving average of a trajectory of checkpoints, oldest first.

    e_0 = x_0,    e_k = decay * e_{k-1} + (1 - decay) * x_k
(averaging of iterates: Polyak and Juditsky 1992; of checkpoints: SWA, Izmailov et al. 2018, arXiv 1803.05407; LAWA, Kaddour 2022, arXiv
2209.14981). Worked out, the last e is one weighted average of all sources, with weights
    decay^(K-1) for the first of K,    (1 - decay) * decay^(K-1-k) for number k > 0,
so it is rounded once and not K times. The plain running mean e_k = e_{k-1} + (x_k - e_{k-1}) / (k + 1), which SWA and LAWA use, comes out
as `weighted_average` with equal weights. With two sources `ema` is `wise_ft` with alpha = decay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundation.errors import ConfigError
from mergers.merger import Inputs, Method
from mergers.methods.linear import average

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Ema(Method):
    """Exponential moving average over the sources in order, the first being the oldest; `decay` is what the past keeps at each step."""

    decay: float = 0.9

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there are two sources or more and 0 <= decay <= 1."""
        if len(source_names) < 2:
            raise ConfigError(f"a moving average needs at least 2 checkpoints, oldest first, got {len(source_names)}; add another source")
        if not (math.isfinite(self.decay) and 0 <= self.decay <= 1):
            raise ConfigError(f"decay is {self.decay}; it is the weight of the past at each step and must lie between 0 and 1")

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """The weight of each source, in words."""
        return tuple(f"weight {weight:.6g}" for weight in ema_weights(self.decay, len(source_names)))

    def files_from(self, source_names: Sequence[str]) -> str:
        """The newest source."""
        return source_names[-1]

    def merge(self, inputs: Inputs) -> Tensor:
        """The moving average of one piece over the sources that hold it, as if the others were not there."""
        return average(inputs.tensors, self.coefficients(inputs.name, inputs.positions))

    def coefficients(self, name: str, positions: Sequence[int]) -> tuple[float, ...]:
        """The weights of the sources at `positions`, which hold tensor `name`; they sum to 1."""
        return ema_weights(self.decay, len(positions))


def ema_weights(decay: float, count: int) -> tuple[float, ...]:
    """The weight of each of `count` sources, oldest first; they sum to 1. Products only: the same bits with any C library."""
    weights = [1.0]
    for _ in range(count - 1):
        weights = [weight * decay for weight in weights] + [1 - decay]
    return tuple(weights)
