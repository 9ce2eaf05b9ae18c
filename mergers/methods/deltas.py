"""Task vectors: what each source has learned since the base, and how such differences are put together again.

Task vector (Ilharco et al. 2023, arXiv 2212.04089, section 2):  d_i = x_i - b.  Their sum:  b + scale * sum_i w_i d_i.
Elect and disjoint merge (Yadav et al. 2023, arXiv 2306.01708, section 3, steps 2 and 3), for each element:
    sign = sgn(sum_i w_i d_i),    m = sum_{i: sgn(d_i) = sign} w_i d_i  /  sum_{i: sgn(d_i) = sign} w_i
The functions below know no hyperparameters and no files; the methods of this folder are made from them.

Sums are written as single multiplications and additions, never as fused ones (`alpha=`): those round differently in the vector body and in
the tail of a tensor, and on different processors.

An element that equals the base in every source keeps its bits, that of -0.0 included (if no weight and no scale is negative). This is why a
delta of nothing is -0.0 here (b + -0.0 has b's bits, b + 0.0 need not), and why the consensus is subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mergers.merger import Inputs
from mergers.methods.linear import compute_dtype

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def base_of(inputs: Inputs) -> Tensor:
    """The base's piece in the compute dtype (float32; float64 if any tensor is float64). Not to be changed in place."""
    return anchor(inputs).to(delta_dtype(inputs))


def deltas(inputs: Inputs, base: Tensor) -> list[Tensor]:
    """x_i - base for each tensor of `inputs`, in their order and in the dtype of `base` (`base_of`); fresh memory, free to change.

    Where a source equals the base its delta is -0.0.
    """
    return [departure.neg_() for departure in departures(inputs, base)]


def departures(inputs: Inputs, base: Tensor) -> list[Tensor]:
    """base - x_i, the deltas with the other sign: a pass cheaper, for what asks for magnitudes only, and for the consensus."""
    import torch

    pieces = [tensor.to(base.dtype, copy=True) for tensor in inputs.tensors]
    return [torch.sub(base, piece, out=piece) for piece in pieces]


def anchor(inputs: Inputs) -> Tensor:
    """The base's piece as it is on disk."""
    if inputs.base is None:
        raise RuntimeError(f"tensor '{inputs.name}' has come without its base; a method of task vectors must declare Need.REQUIRED")
    return inputs.base


def delta_dtype(inputs: Inputs) -> torch.dtype:
    """What deltas are computed in: float32, or float64 if the base or a source is float64."""
    return compute_dtype((*inputs.tensors, anchor(inputs)))


def weighted_sum(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """sum_i w_i d_i, added up in the order given, in the deltas' dtype; fresh memory."""
    total = deltas[0] * weights[0]
    for delta, weight in zip(deltas[1:], weights[1:], strict=True):
        total += delta if weight == 1 else delta * weight
    return total


def add_task_vectors(base: Tensor, deltas: Sequence[Tensor], weights: Sequence[float], scale: float) -> Tensor:
    """base + scale * sum_i w_i d_i in the deltas' dtype; the deltas are left as they are.

    A single source of weight 1 at scale 1 comes back within two roundings (of its delta, and of the sum): b + (x - b) is not always x. It
    is x to the bit where x and b are of half precision and the difference fits float32, as it does between a model and its fine-tuning.
    """
    total = weighted_sum(deltas, weights)
    if scale != 1:
        total *= scale
    return total.add_(base)


def add_consensus(
    base: Tensor,
    departures: Sequence[Tensor],
    weights: Sequence[float],
    scale: float,
    normalize: bool,
    votes: Sequence[float] | None = None,
) -> Tensor:
    """base + scale * the disjoint merge of the deltas d_i: for each element only those count whose sign is that of sum_i votes_i d_i.

    `departures` are -d_i. `votes` are the weights unless given. With `normalize` the weighted mean of those that agree, otherwise their
    weighted sum. Where the sum of votes is exactly 0 no sign is elected and nothing is added. A NaN in any delta comes out as NaN. Weights
    must not be negative. The departures are used up.
    """
    import torch

    against = weighted_sum(departures, weights if votes is None else votes).sign_()
    total = divisor = None
    for departure, weight in zip(departures, weights, strict=True):
        agreeing = departure.mul_(against).clamp_(min=0)  # |d_i| where it agrees, else 0
        if normalize:
            held = agreeing.sign() if weight == 1 else agreeing.sign().mul_(weight)
            divisor = held if divisor is None else divisor.add_(held)
        if weight != 1:
            agreeing *= weight
        total = agreeing if total is None else total.add_(agreeing)
    assert total is not None
    if divisor is not None:
        # Where none agrees total is 0, so any divisor but 0 will do; the least weight is below every other divisor.
        total /= divisor.clamp_(min=min((weight for weight in weights if weight > 0), default=1.0))
    total.abs_().mul_(against if scale == 1 else against.mul_(scale))
    return torch.sub(base, total, out=total)
