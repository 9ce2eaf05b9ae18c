"""The Karcher mean: the point on the sphere with the least weighted sum of squared arcs to the sources.

For unit vectors u_i = x_i / |x_i| of one tensor, flattened (Karcher 1977, "Riemannian center of mass and mollifier smoothing"):
    m = argmin sum_i w_i arccos(<m, u_i>)^2,    found where sum_i w_i log_m(u_i) = 0,    W = m * sum_i w_i |x_i|.
Gradient descent with step 1, m <- exp_m(sum_i w_i log_m(u_i)) (Buss and Fillmore 2001, algorithm A1), in the N coefficients of `gram.py`:
an iteration costs N^2 operations whatever the size of the tensor, so it is run until the step is below 1e-12 radians. Half the mean of
squared arcs has a second derivative of at most 1 along any great circle, so step 1 never goes up. Where all sources lie within 90 degrees
of each other there is one such point; otherwise the one reached from the normalised mean is taken.

Where directions give no mean (opposite tensors, tensors of zeros) the straight weighted average is taken; see `gram.spherical_mean`.
mergekit 0.1.5's karcher has equal weights only and stops after 10 iterations or at 1e-5; run to convergence it gives the same coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundation.errors import ConfigError, InputError
from mergers.merger import Inputs
from mergers.methods.gram import GramMethod, combine, known_gram, spherical_mean
from mergers.methods.linear import weights_of_holders
from mergers.methods.slerp import check_mean, mean_roles

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Karcher(GramMethod):
    """N sources by the centre of mass of their directions, times the weighted mean norm; equal weights unless given.

    `iterations` bounds the search, `tolerance` is the last step's length in radians at which it ends.
    """

    weights: tuple[float, ...] | None = None
    iterations: int = 1000
    tolerance: float = 1e-12

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there are two sources or more, weights that make an average, iterations >= 1, 1e-14 <= tolerance < 1."""
        check_mean("Karcher mean", self.weights, source_names)
        if self.iterations < 1:
            raise ConfigError(f"iterations is {self.iterations}; a Karcher mean needs at least 1")
        if not (math.isfinite(self.tolerance) and 1e-15 <= self.tolerance < 1):
            raise ConfigError(
                f"tolerance is {self.tolerance}; it is an angle in radians at which the search ends: give one from 1e-14 to below 1"
            )

    def check_holders(self, name: str, positions: Sequence[int]) -> None:
        """Raise ConfigError if all sources that hold tensor `name` have weight 0."""
        weights_of_holders(self.weights, name, positions)

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """The weight of each source, in words."""
        return mean_roles(self.weights, source_names)

    def merge(self, inputs: Inputs) -> Tensor:
        """The mean of one piece, over the sources that hold it; InputError if the search has not come to an end."""
        if len(inputs.tensors) == 1:
            return inputs.tensors[0]
        return combine(inputs.tensors, self.coefficients(inputs))

    def coefficients(self, inputs: Inputs) -> tuple[float, ...]:
        """What each of several sources is multiplied by; InputError if the search has not come to an end."""
        coefficients, step = spherical_mean(
            known_gram(inputs), weights_of_holders(self.weights, inputs.name, inputs.positions), self.iterations, self.tolerance
        )
        if step > self.tolerance:
            raise InputError(
                f"the Karcher mean of tensor '{inputs.name}' still moves by {step:.3g} radians after {self.iterations} iterations "
                f"(tolerance {self.tolerance:g}): its sources point almost evenly in all directions; give more iterations, or use "
                "weighted_average"
            )
        return coefficients
