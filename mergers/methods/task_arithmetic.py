"""Task arithmetic: what sources have learned since the base, added up, scaled, and added to the base.

Ilharco et al. 2023 (arXiv 2212.04089, section 2), with the task vector tau_i = x_i - base:
    W = base + scale * sum_i w_i tau_i.                                                     (scale is the paper's lambda)
Learning several tasks: all weights 1, scale chosen on validation data (0.3 to 0.5 are common for many tasks).
Forgetting a task: one source, weight -1:  W = base - scale * tau.
Analogy "A is to B as C is to D":  tau_D = tau_C + (tau_B - tau_A), weights 1 for C, 1 for B, -1 for A;  with C itself as the base and
sources B, A it reads  W = C + (B - A)  with weights 1, -1 (what the two differ in is added to C; the base cancels).
With `normalize` the weights are divided by their sum, so that scale 1 and positive weights give an average.

Same as mergekit's task_arithmetic (lambda, weight, normalize), in float32 whatever the dtype of the files. The modality arithmetic of
arXiv 2304.14933 is this with experts as sources and the seed as base (`experts.py`; `sequential_arithmetic` is what its program computes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from mergers.merger import Inputs, Method, Need
from mergers.methods.deltas import base_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TaskArithmetic(Method):
    """W = base + scale * sum_i weights_i * (x_i - base); weights are 1 unless given, may be negative. Elementwise, float32, one cast."""

    weights: tuple[float, ...] | None = None
    scale: float = 1.0
    normalize: bool = False

    base: ClassVar[Need] = Need.REQUIRED

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there is a source, one finite weight for each, a finite scale, and a sum to divide by where asked."""
        if not source_names:
            raise ConfigError("task arithmetic needs at least 1 checkpoint besides the base, got none; add a source")
        weights = self.weights_for(range(len(source_names))) if self.weights is None else self.weights
        if len(weights) != len(source_names):
            raise ConfigError(
                f"{len(weights)} weights for {len(source_names)} checkpoints ({', '.join(source_names)}); give one weight per checkpoint"
            )
        for name, weight in zip(source_names, weights, strict=True):
            if not math.isfinite(weight):
                raise ConfigError(f"the weight of '{name}' is {weight}; give a finite number (negative: its task is to be forgotten)")
        if not math.isfinite(self.scale):
            raise ConfigError(f"scale is {self.scale}; it multiplies the sum of the task vectors and must be finite")
        if self.normalize:
            normalized(weights, "the sources")

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """What each task vector is multiplied by, in words."""
        weights = self.weights_for(range(len(source_names)))
        if self.normalize:
            weights = normalized(weights, "the sources")
        return tuple(f"task vector times {weight * self.scale:.6g}" for weight in weights)

    def check_holders(self, name: str, positions: Sequence[int]) -> None:
        """Raise ConfigError if a mean is to be taken and the weights of the sources that hold tensor `name` cancel."""
        if self.normalize:
            normalized(self.weights_for(positions), f"the sources that hold tensor '{name}'")

    def weights_for(self, positions: Sequence[int]) -> tuple[float, ...]:
        """The weights of the sources at `positions`, as they are in the config."""
        return tuple(1.0 if self.weights is None else self.weights[position] for position in positions)

    def coefficients(self, name: str, positions: Sequence[int]) -> tuple[float, ...]:
        """What the task vectors of the sources at `positions`, which hold tensor `name`, are multiplied by before the scale."""
        weights = self.weights_for(positions)
        return normalized(weights, f"the sources that hold tensor '{name}'") if self.normalize else weights

    def merge(self, inputs: Inputs) -> Tensor:
        """The merged piece, over the sources that hold it. A lone source at weight * scale = 1 comes back bit for bit;
        one at 0 takes no part.

        Computed as base - scale * sum_i w_i (base - x_i), added up in config order: the same value with one pass less, and where a source
        equals the base the zero that is taken away leaves a base of -0.0 as it is.
        """
        import torch

        weights = self.coefficients(inputs.name, inputs.positions)
        if len(weights) == 1 and weights[0] * self.scale == 1:
            return inputs.tensors[0]
        base = base_of(inputs)
        total: Tensor | None = None
        for tensor, weight in zip(inputs.tensors, weights, strict=True):
            if weight * self.scale == 0:
                continue
            piece = tensor.to(base.dtype)
            difference = base - piece if piece is tensor else torch.sub(base, piece, out=piece)
            if weight != 1:
                difference *= weight
            total = difference if total is None else total.add_(difference)
        if total is None:
            return base
        if self.scale != 1:
            total *= self.scale
        return torch.sub(base, total, out=total)


def normalized(weights: Sequence[float], whose: str) -> tuple[float, ...]:
    """`weights` divided by their sum; ConfigError if they cancel."""
    total = math.fsum(weights)
    if abs(total) <= 1e-6 * math.fsum(abs(weight) for weight in weights):
        given = ", ".join(f"{weight:.6g}" for weight in weights)
        raise ConfigError(f"the weights of {whose} ({given}) sum to {total:.6g} and cannot be normalized; set normalize: false")
    return tuple(weight / total for weight in weights)
