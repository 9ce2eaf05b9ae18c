"""Model stock: between the base and the mean of the sources, as far out as the sources agree.

Jang, Yun and Han 2024 (arXiv 2403.19522, section 4, eq. for N fine-tuned models), tensor by tensor, with d_i = x_i - base:
    t = N cos / (1 + (N - 1) cos),    cos = the mean cosine of all pairs of deltas,    W = t * mean_i x_i + (1 - t) * base.
The paper takes every fine-tuned model to lie at one distance and one angle around an unseen centre; cos >= 0 in that picture. Measured
deltas may point against each other: cos < 0 is taken as 0, so W is the base (mergekit goes on to t < 0, past the base, away from the
sources). A source that equals the base has no direction: its cosines count as 0, as in mergekit. mergekit's filter_wise is not here.

One counting round over the deltas (`gram.py`). As t lies in [0, 1], W is an average of base and sources: equal elements keep their bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from mergers.merger import Inputs, Need
from mergers.methods.deltas import anchor
from mergers.methods.gram import GramMethod, cosines, known_gram
from mergers.methods.linear import average

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array


@dataclass(frozen=True)
class ModelStock(GramMethod):
    """W = t * mean of the sources + (1 - t) * base, t from the angles between the deltas, tensor by tensor. No hyperparameters."""

    base: ClassVar[Need] = Need.REQUIRED
    copies_equal: ClassVar[bool] = True

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there are two sources or more: t comes from the angles between them."""
        if len(source_names) < 2:
            raise ConfigError(f"model stock needs at least 2 checkpoints besides the base, got {len(source_names)}; add another source")

    def merge(self, inputs: Inputs) -> Tensor:
        """The piece between base and mean; a tensor that only one source holds has no angle and is taken from it."""
        if len(inputs.tensors) == 1:
            return inputs.tensors[0]
        ratio, count = interpolation_ratio(known_gram(inputs)), len(inputs.tensors)
        return average((anchor(inputs), *inputs.tensors), (1 - ratio, *(ratio / count,) * count))


def interpolation_ratio(gram: Array) -> float:
    """t of the paper from the Gram matrix of the deltas: 0 (stay at the base) to 1 (the mean of the sources)."""
    count = len(gram)
    cosine = cosines(gram)
    mean = sum(float(cosine[i, j]) for i in range(count) for j in range(i)) / (count * (count - 1) / 2)
    return count * mean / (1 + (count - 1) * mean) if mean > 0 else 0.0
