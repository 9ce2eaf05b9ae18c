"""RegMean: merge linear layers so that their outputs on each source's own inputs change least.

Jin et al. 2023 (arXiv 2212.09849, section 3, eq. 2 and "reducing non-diagonal items"), for a weight W [out, in] and G_i [in, in] = the mean
over tokens of x x^T, x the layer's inputs in source i:
    W = argmin sum_i c_i |X_i (W_i - W)^T|^2 = (sum_i c_i W_i G~_i) (sum_i c_i G~_i)^-1,    G~ = a G + (1 - a) diag(G).
a = `off_diagonal`: 1 is the least-squares solution, 0 a weighted average of each column by its inputs' mean squares. The default is the
paper's 0.9 (the modality merging of arXiv 2304.14933 uses 1).

Ours differs from the paper in two points. Computed as a correction to the first source,
    W = W_1 + (sum_{i>1} c_i (W_i - W_1) (G~_i + lambda I)) (sum_i c_i G~_i + lambda I)^-1,
which is the same formula, costs a product less, and gives equal weights back. And there is a ridge, lambda = `ridge` * the mean of the
summed diagonal, that pulls towards the plain weighted mean (not towards zero): inputs that no source has seen get the mean, and a Gram of
few tokens needs no inverse of a singular matrix. Solved by Cholesky in float64, on one thread.

Tensors without Gram in any source (embeddings, norms, biases) get the plain weighted mean. Weights of more than two dimensions
(convolutions) are taken as [out, all else]. Grams are wanted per token: otherwise sources with more tokens count for more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import InputError
from mergers.merger import Granularity, Inputs, Method, Statistic
from mergers.methods.linear import average, weights_of_holders
from mergers.methods.measured import (
    Missing,
    Shapes,
    check_held,
    check_measured,
    check_positive,
    check_shapes,
    measured_roles,
)

if TYPE_CHECKING:
    from torch import Tensor

ASYMMETRY = 1e-3
"""How far a Gram may be from symmetric, relative to its largest diagonal entry: room for products in float16, not for another matrix."""


@dataclass(frozen=True)
class RegMean(Method):
    """Regression mean of linear layers, weighted mean of all else. Reads the statistic `gram` of every source.

    `missing` says what becomes of a tensor that some sources have a Gram for and others do not: "error", or "mean" (plain weighted mean).
    """

    weights: tuple[float, ...] | None = None
    off_diagonal: float = 0.9
    ridge: float = 1e-6
    missing: Missing = "error"

    granularity: ClassVar[Granularity] = Granularity.TENSOR
    statistic: ClassVar[Statistic | None] = Statistic("gram", per_element=False)

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there are two sources or more, weights that make an average, and factors from 0 to 1."""
        check_measured("RegMean", self.weights, self.missing, source_names)
        check_positive(self.off_diagonal, "off_diagonal", 0, 1, "it multiplies the Grams off their diagonals")
        check_positive(self.ridge, "ridge", 0, 1, "it is added to the diagonal, relative to its mean,")

    def check_statistics(self, name: str, shape: tuple[int, ...], found: Shapes, sources: Sequence[str] = ()) -> None:
        """Raise InputError unless tensor `name` can be merged with statistics of these shapes (None: that source has none)."""
        if len(shape) < 2 and any(held is not None for held in found):
            raise InputError(
                f"tensor '{name}' of shape {list(shape)} has a gram, but only weights of two dimensions or more have inputs to regress on; "
                "take it out of the statistics"
            )
        columns = math.prod(shape[1:])
        check_shapes("gram", name, (columns, columns), found, sources)
        check_held("gram", name, found, self.missing, sources)

    def check_holders(self, name: str, positions: Sequence[int]) -> None:
        """Raise ConfigError if all sources that hold tensor `name` have weight 0."""
        weights_of_holders(self.weights, name, positions)

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """What each source counts for, in words."""
        return measured_roles("gram", self.weights, source_names)

    def merge(self, inputs: Inputs) -> Tensor:
        """The merged tensor, rounded once to the first source's dtype, or as `average` gives it; InputError if a Gram is none."""
        if len(inputs.tensors) == 1:
            return inputs.tensors[0]
        weights = weights_of_holders(self.weights, inputs.name, inputs.positions)
        shapes = [None if gram is None else tuple(gram.shape) for gram in inputs.statistics]
        self.check_statistics(inputs.name, tuple(inputs.tensors[0].shape), shapes, inputs.sources)
        if not shapes or None in shapes:
            return average(inputs.tensors, weights)
        kept = [index for index, weight in enumerate(weights) if weight > 0]
        if len(kept) == 1:
            return inputs.tensors[kept[0]]
        merged = self.regress(inputs, kept, weights)
        if merged is None:
            return average(inputs.tensors, weights)
        return merged.to(inputs.tensors[0].dtype).view(inputs.tensors[0].shape)

    def regress(self, inputs: Inputs, kept: Sequence[int], weights: Sequence[float]) -> Tensor | None:
        """The regression mean of the sources `kept`, float64 [out, in]; None where every Gram is zero.

        Holds at most two float64 matrices [in, in] and three [out, in] at once, besides its inputs.
        """
        import torch

        summed = self.sum_grams(inputs, kept, weights)
        diagonal = summed.diagonal()
        ridge = self.ridge * float(diagonal.mean())
        if float(diagonal.max()) == 0:
            return None
        diagonal += ridge
        first = inputs.tensors[kept[0]].flatten(1)
        right = torch.zeros(first.shape, dtype=torch.float64)
        for index in kept[1:]:
            gram = gram_at(inputs, index).to(torch.float64)
            step = inputs.tensors[index].flatten(1).to(torch.float64) - first
            right.addmm_(step, gram, alpha=weights[index] * self.off_diagonal)
            own = gram.diagonal() * (1 - self.off_diagonal) + ridge
            right += step.mul_(own * weights[index])
            del gram, step
        factor, failed = torch.linalg.cholesky_ex(summed)
        del summed, diagonal
        if failed:
            raise InputError(
                f"the grams of tensor '{inputs.name}' add up to a matrix that is not positive definite (row {int(failed)}): "
                f"inputs that depend on each other or are always 0; raise ridge (now {self.ridge:g}) or lower off_diagonal "
                f"(now {self.off_diagonal:g})"
            )
        return torch.cholesky_solve(right.mT, factor).mT.add(first)

    def sum_grams(self, inputs: Inputs, kept: Sequence[int], weights: Sequence[float]) -> Tensor:
        """sum_i c_i G~_i of the sources `kept`, float64 [in, in], once every Gram is found fit."""
        import torch

        summed: Tensor | None = None
        for index in kept:
            gram = gram_at(inputs, index)
            check_gram(gram, inputs.sources[index], inputs.name)
            term = gram.to(torch.float64, copy=True).mul_(weights[index])
            summed = term if summed is None else summed.add_(term)
        assert summed is not None
        diagonal = summed.diagonal().clone()
        summed *= self.off_diagonal
        summed.diagonal().copy_(diagonal)
        return summed


def gram_at(inputs: Inputs, index: int) -> Tensor:
    """The Gram of one source."""
    gram = inputs.statistics[index]
    assert gram is not None
    return gram


def check_gram(gram: Tensor, source: str, name: str) -> None:
    """Raise InputError unless `gram` can be a sum of x x^T: finite, symmetric, no negative diagonal."""
    diagonal = gram.diagonal()
    if not bool(gram.isfinite().all()):
        what = "holds NaN or infinity"
    elif float(diagonal.min()) < 0:
        what = f"has {float(diagonal.min()):g} on its diagonal"
    elif float((gram - gram.mT).abs_().max()) > ASYMMETRY * float(diagonal.max()):
        what = "is not symmetric"
    else:
        return
    raise InputError(f"the gram of '{source}' for tensor '{name}' {what}, so it is no sum of x x^T; measure it again")
