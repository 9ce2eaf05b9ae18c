"""Averages: the N-way weighted average and two-way WiSE-FT.

Weighted average ("model soup", Wortsman et al. 2022, arXiv 2203.05482, eq. for uniform soups with weights):  W = sum_i w_i W_i,  sum_i w_i
= 1. WiSE-FT (Wortsman et al. 2021, arXiv 2109.01903, section 3):  W = alpha * W_previous + (1 - alpha) * W_tuned.
NOTE: the paper's alpha is the weight of the fine-tuned model. Here `alpha` is the weight of the PREVIOUS stage's model; `weights` spells
out both.

Identities that hold to the bit: a weight of 1 gives that source back, equal inputs give themselves back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from mergers.merger import Inputs, Method

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SUM_TOLERANCE = 1e-6
"""How far from 1 a sum of weights may lie: room for decimal fractions that binary floats cannot hold, no more."""


@dataclass(frozen=True)
class WeightedAverage(Method):
    """W = sum_i weights_i * W_i over N sources; equal weights 1/N unless given. Elementwise, float32, one cast."""

    weights: tuple[float, ...] | None = None

    on_device: ClassVar[bool] = True

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there is one finite, non-negative weight per source and they sum to 1."""
        if len(source_names) < 2:
            raise ConfigError(f"an average needs at least 2 checkpoints, got {len(source_names)}; add another source")
        if self.weights is not None:
            check_weights(self.weights, source_names)

    def check_holders(self, name: str, positions: Sequence[int]) -> None:
        """Raise ConfigError if all sources that hold tensor `name` have weight 0."""
        weights_of_holders(self.weights, name, positions)

    def weights_for(self, count: int) -> tuple[float, ...]:
        """The weight of each of `count` sources, in config order."""
        return self.weights if self.weights is not None else (1.0 / count,) * count

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """The weight of each source, in words."""
        return tuple(f"weight {weight:.6g}" for weight in self.weights_for(len(source_names)))

    def merge(self, inputs: Inputs) -> Tensor:
        """The average of one piece; where a partial merge lacks sources, over those that hold it, with their weights scaled to sum to 1."""
        return average(inputs.tensors, self.coefficients(inputs.name, inputs.positions))

    def coefficients(self, name: str, positions: Sequence[int]) -> tuple[float, ...]:
        """The weights of the sources at `positions`, which hold tensor `name`; they sum to 1."""
        return weights_of_holders(self.weights, name, positions)


@dataclass(frozen=True)
class WiseFT(Method):
    """W = alpha * previous + (1 - alpha) * tuned; `alpha` is the weight of the PREVIOUS stage's model."""

    alpha: float = 0.5

    on_device: ClassVar[bool] = True
    SOURCES: ClassVar[tuple[str, ...]] = ("previous", "tuned")

    @property
    def weights(self) -> dict[str, float]:
        """Both weights, by the role of the source."""
        return {"previous": self.alpha, "tuned": 1.0 - self.alpha}

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless 0 <= alpha <= 1 and the sources are exactly previous, tuned."""
        if not (math.isfinite(self.alpha) and 0.0 <= self.alpha <= 1.0):
            raise ConfigError(f"alpha is {self.alpha}; it is the weight of the previous stage's model and must lie between 0 and 1")
        if tuple(source_names) != self.SOURCES:
            raise ConfigError(
                f"wise_ft merges exactly two sources named previous, tuned (in that order), got {', '.join(source_names) or 'none'}; "
                "name them so, or use weighted_average"
            )

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """The weight of each source, in words."""
        return (f"weight {self.alpha:.6g} (alpha)", f"weight {1.0 - self.alpha:.6g}")

    def files_from(self, source_names: Sequence[str]) -> str:
        """The fine-tuned model: its config and tokenizer know what the last stage added."""
        return "tuned"

    def merge(self, inputs: Inputs) -> Tensor:
        """The interpolation of one piece."""
        return average(inputs.tensors, self.coefficients(inputs.name, inputs.positions))

    def coefficients(self, name: str, positions: Sequence[int]) -> tuple[float, ...]:
        """The weights of the sources at `positions`, which hold tensor `name`; they sum to 1."""
        return renormalised(tuple(tuple(self.weights.values())[position] for position in positions), name)


def check_weights(weights: Sequence[float], source_names: Sequence[str]) -> None:
    """Raise ConfigError unless `weights` are one per source, finite, non-negative and sum to 1 within SUM_TOLERANCE."""
    if len(weights) != len(source_names):
        raise ConfigError(
            f"{len(weights)} weights for {len(source_names)} checkpoints ({', '.join(source_names)}); give one weight per checkpoint"
        )
    for name, weight in zip(source_names, weights, strict=True):
        if not math.isfinite(weight) or weight < 0:
            raise ConfigError(
                f"the weight of '{name}' is {weight}; weights must be finite and not negative, so that an average stays between its sources"
            )
    total = math.fsum(weights)
    if abs(total - 1.0) > SUM_TOLERANCE:
        scaled = ", ".join(f"{weight / total:.6g}" for weight in weights) if total > 0 else "equal weights"
        raise ConfigError(f"weights sum to {total:.8g}: they must sum to 1 (within {SUM_TOLERANCE:g}); the nearest that do: {scaled}")


def weights_of_holders(weights: tuple[float, ...] | None, name: str, positions: Sequence[int]) -> tuple[float, ...]:
    """The weights of the sources at `positions`, which hold tensor `name`, summing to 1; equal ones unless given. ConfigError if all are
    0."""
    if weights is None:
        return (1.0 / len(positions),) * len(positions)
    return renormalised(tuple(weights[position] for position in positions), name)


def renormalised(weights: tuple[float, ...], name: str) -> tuple[float, ...]:
    """`weights` of the sources that hold tensor `name`, scaled to sum to 1; unchanged if they already do."""
    total = math.fsum(weights)
    if total <= 0:
        raise ConfigError(
            f"tensor '{name}' is held only by sources of weight 0, so its average is undefined; give one of them weight, or drop them"
        )
    return weights if abs(total - 1.0) <= SUM_TOLERANCE else tuple(weight / total for weight in weights)


def average(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum_i w_i x_i of equally shaped float tensors of any float dtypes; weights sum to 1.

    Computed in float32 (float64 if a tensor is float64) and returned in it, or rounded once to the common dtype of two half-precision
    tensors. A tensor of weight 0 takes no part. Elements that are equal in all tensors come back bit for bit, whatever surrounds them.
    """
    kept = [(tensor, weight) for tensor, weight in zip(tensors, weights, strict=True) if weight > 0]
    if len(kept) == 1:
        return kept[0][0]
    if len(kept) == 2:
        return interpolate(kept[0][0], kept[1][0], kept[1][1])
    return accumulate([tensor for tensor, _ in kept], [weight for _, weight in kept])


def interpolate(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """(1 - weight) * first + weight * second by `torch.lerp`, exact where the two are equal.

    Two tensors of one half-precision dtype go to `torch.lerp` as they are: it computes in float32 and rounds once, to the same bits as
    casting by hand (held by a test), in a third of the time.
    """
    import torch

    if first.dtype != second.dtype:
        dtype = compute_dtype((first, second))
        first, second = first.to(dtype), second.to(dtype)
    result = torch.lerp(first, second, weight)
    if weight < 0.5:
        # Below 0.5 lerp is first + weight * (second - first), which turns two -0.0 into +0.0. The result of two negatives is negative, so
        # setting their common sign bit changes nothing else.
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[result.element_size()]
        if has_negative_zero(first.view(bits)):
            both_negative = (first.view(bits) & second.view(bits)).bitwise_and_(torch.iinfo(bits).min)
            result.view(bits).bitwise_or_(both_negative)
    return result


def has_negative_zero(bits: Tensor) -> bool:
    """Whether a -0.0 may be among floats, seen as signed integers: its bits are the least of all. One fast look at what is in memory here;
    on a GPU, where the answer would have to be waited for, always so."""
    import torch

    return bits.device.type != "cpu" or (bits.numel() > 0 and int(bits.numpy().min()) == torch.iinfo(bits.dtype).min)


def accumulate(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum_i w_i x_i as x_0 - sum_{i>0} w_i (x_0 - x_i), added up in the order given.

    The same value, as the weights sum to 1. Written this way, elements that are equal in all tensors lose a zero and keep every bit,
    that of -0.0 included.
    """
    dtype = compute_dtype(tensors)
    first = tensors[0].to(dtype)
    total = (first - tensors[1].to(dtype)).mul_(weights[1])
    for tensor, weight in zip(tensors[2:], weights[2:], strict=True):
        total += (first - tensor.to(dtype)).mul_(weight)
    return first - total


def compute_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """float32, unless a tensor is float64: then float64, so that its bits survive."""
    import torch

    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
