"""Averages along the arc: SLERP of two models, NuSLERP (of their deltas), and the spherical average of any number.

SLERP (Shoemake 1985, "Animating rotation with quaternion curves", section 3.3), tensor by tensor, flattened, theta the angle between them:
    W = sin((1 - t) theta) / sin(theta) * x_1  +  sin(t theta) / sin(theta) * x_2,        t = the weight of the second source.
Tensors with |cos theta| > 0.9995 and tensors of zeros are averaged straight, (1 - t) x_1 + t x_2: within 1.9 degrees the arc and its chord
are one, between opposite tensors (two scalars of unlike sign, for one) no arc is the shortest, and zeros have no direction. Two models
tuned from one base are nearly parallel in most tensors, so there SLERP is the average; NuSLERP from a base is not.

NuSLERP: the same with t = w_2 / (w_1 + w_2). With a base the deltas x_i - base take the place of the tensors, and the base is added; a
tensor that the base lacks goes along the arc between the tensors themselves.

Spherical average: one step of the mean of `gram.spherical_mean`, times the weighted mean of the norms (barycentric; Buss and Fillmore 2001,
"Spherical averages and applications to spherical splines and interpolation", from the normalised mean; `karcher.py` goes on to the end).

All need one counting round (`gram.py`). mergekit 0.1.5: its slerp agrees, except that it takes zeros for orthogonal; so does its nuslerp
with nuslerp_flatten (its default; there are no row-wise variants here). Its multislerp starts from the mean of the tensors as they are,
where ours starts from that of their directions; and on unit vectors of unequal weights it gave back its starting point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from mergers.merger import Inputs, Need
from mergers.methods.deltas import add_task_vectors, base_of, deltas
from mergers.methods.gram import PARALLEL, GramMethod, combine, cosines, is_average, known_gram, spherical_mean
from mergers.methods.linear import check_weights, weights_of_holders

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array


@dataclass(frozen=True)
class Slerp(GramMethod):
    """Two sources along the arc between them; `weight` is that of the second. At 0 and 1 a source's bytes come back."""

    weight: float = 0.5

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there are two sources and 0 <= weight <= 1."""
        check_two("slerp", source_names)
        if not (math.isfinite(self.weight) and 0 <= self.weight <= 1):
            raise ConfigError(
                f"the weight of slerp is {self.weight}; it is that of the second source ('{source_names[1]}') and must lie between 0 and 1"
            )

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """The weight of each source, in words."""
        return (f"weight {1 - self.weight:.6g} on the arc", f"weight {self.weight:.6g} on the arc")

    def merge(self, inputs: Inputs) -> Tensor:
        """The piece on the arc; a tensor that only one source holds is taken from it."""
        if len(inputs.tensors) == 1:
            return inputs.tensors[0]
        return combine(inputs.tensors, self.coefficients(inputs))

    def coefficients(self, inputs: Inputs) -> tuple[float, ...]:
        """What each of the two sources is multiplied by."""
        return arc(known_gram(inputs), self.weight)


@dataclass(frozen=True)
class NuSlerp(GramMethod):
    """Two sources along the arc between them, or with a base along the arc between their deltas; `weights` need not sum to 1."""

    weights: tuple[float, ...] = (1.0, 1.0)

    base: ClassVar[Need] = Need.OPTIONAL

    @property
    def fraction(self) -> float:
        """How far along the arc, from the first source (0) to the second (1)."""
        return self.weights[1] / (self.weights[0] + self.weights[1])

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there are two sources and two finite weights, none negative, not both 0."""
        check_two("nuslerp", source_names)
        if len(self.weights) != 2 or not all(math.isfinite(weight) and weight >= 0 for weight in self.weights) or sum(self.weights) <= 0:
            given = ", ".join(f"{weight:.6g}" for weight in self.weights) or "none"
            raise ConfigError(f"the weights of nuslerp are {given}; give one per source, finite, not negative, not both 0")

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """The weight of each source, in words."""
        return tuple(f"weight {weight / sum(self.weights):.6g} on the arc" for weight in self.weights)

    def files_from(self, source_names: Sequence[str]) -> str:
        """The first source, with a base or without."""
        return source_names[0]

    def merge(self, inputs: Inputs) -> Tensor:
        """The piece on the arc; a tensor that only one source holds is taken from it."""
        if len(inputs.tensors) == 1:
            return inputs.tensors[0]
        coefficients = arc(known_gram(inputs), self.fraction)
        if inputs.base is None or is_average(coefficients):  # base + sum_i c_i (x_i - base): the base cancels where the sum is 1
            return combine(inputs.tensors, coefficients)
        base = base_of(inputs)
        return add_task_vectors(base, deltas(inputs, base), coefficients, 1.0)


@dataclass(frozen=True)
class SphericalAverage(GramMethod):
    """N sources by the weighted mean of their directions (one step on the sphere) times that of their norms; equal weights unless given."""

    weights: tuple[float, ...] | None = None

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless there are two sources or more, and one weight for each, none negative, summing to 1."""
        check_mean("spherical average", self.weights, source_names)

    def check_holders(self, name: str, positions: Sequence[int]) -> None:
        """Raise ConfigError if all sources that hold tensor `name` have weight 0."""
        weights_of_holders(self.weights, name, positions)

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """The weight of each source, in words."""
        return mean_roles(self.weights, source_names)

    def merge(self, inputs: Inputs) -> Tensor:
        """The mean of one piece, over the sources that hold it."""
        if len(inputs.tensors) == 1:
            return inputs.tensors[0]
        return combine(inputs.tensors, self.coefficients(inputs))

    def coefficients(self, inputs: Inputs) -> tuple[float, ...]:
        """What each of several sources is multiplied by."""
        weights = weights_of_holders(self.weights, inputs.name, inputs.positions)
        return spherical_mean(known_gram(inputs), weights, steps=1)[0]


def arc(gram: Array, fraction: float) -> tuple[float, float]:
    """Coefficients of the two tensors at `fraction` of the arc between them; exactly (1, 0) and (0, 1) at its ends."""
    cosine = float(cosines(gram)[0, 1])
    if min(gram[0, 0], gram[1, 1]) <= 0 or abs(cosine) > PARALLEL:
        return 1 - fraction, fraction
    angle = math.acos(cosine)
    return math.sin((1 - fraction) * angle) / math.sin(angle), math.sin(fraction * angle) / math.sin(angle)


def check_two(method: str, source_names: Sequence[str]) -> None:
    """Raise ConfigError unless there are exactly two sources."""
    if len(source_names) != 2:
        raise ConfigError(
            f"{method} merges exactly two sources, got {len(source_names)} ({', '.join(source_names) or 'none'}); "
            "for more use spherical_average or karcher"
        )


def check_mean(method: str, weights: tuple[float, ...] | None, source_names: Sequence[str]) -> None:
    """Raise ConfigError unless there are two sources or more and their weights, if given, make an average."""
    if len(source_names) < 2:
        raise ConfigError(f"a {method} needs at least 2 checkpoints, got {len(source_names)}; add another source")
    if weights is not None:
        check_weights(weights, source_names)


def mean_roles(weights: tuple[float, ...] | None, source_names: Sequence[str]) -> tuple[str, ...]:
    """The weight of each source on the sphere, in words."""
    return tuple(f"weight {weight:.6g} on the sphere" for weight in weights or (1 / len(source_names),) * len(source_names))
