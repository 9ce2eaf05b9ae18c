"""What the methods that thin out task vectors share: per-source weights, a scale, and the two ways to put thinned deltas together.

Linear:     b + scale * sum_i w_i d_i                      (divided by sum_i w_i with `normalize`)
Consensus:  b + scale * the disjoint merge of `deltas.py`  (mean of those that agree with `normalize`, else their sum)

Weights say how much a source's changes count; they need not sum to 1. A source of weight 0 takes no part. In a linear sum a negative weight
takes a source's changes out (task negation); where signs are elected, or a mean is taken, it has no meaning and is refused.

How much of a source's changes is kept may be one number for all sources, or one per source in config order. Of a source of density 1
nothing is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from mergers.merger import Inputs, Method, Need
from mergers.methods.deltas import add_consensus, add_task_vectors, base_of, deltas, departures
from mergers.methods.task_arithmetic import TaskArithmetic, normalized
from mergers.methods.threshold import ROUNDS, count, likely, needs, watches

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array


class SparseMethod(Method):
    """A method that thins out each source's delta, then adds them to the base. Subclasses are dataclasses with these fields."""

    base: ClassVar[Need] = Need.REQUIRED
    consensus: ClassVar[bool] = False
    """Whether signs are elected."""

    weights: tuple[float, ...] | None
    scale: float
    normalize: bool

    def check(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless weights and scale fit these sources, and `check_sparsity` passes."""
        if not source_names:
            raise ConfigError("no sources to merge; name at least one beside the base")
        if not math.isfinite(self.scale):
            raise ConfigError(f"scale is {self.scale}; it multiplies the merged changes and must be a finite number, e.g. 1.0")
        if self.weights is not None:
            check_delta_weights(self.weights, source_names, negative=not (self.consensus or self.normalize))
        self.check_sparsity(source_names)

    def check_holders(self, name: str, positions: Sequence[int]) -> None:
        """Raise ConfigError if a mean is to be taken and the weights of the sources that hold tensor `name` cancel."""
        if self.normalize:
            normalized(self.weights_for(positions), f"the sources that hold tensor '{name}'")

    def weights_for(self, positions: Sequence[int]) -> tuple[float, ...]:
        """The weights of the sources at `positions`, as they are in the config."""
        return (1.0,) * len(positions) if self.weights is None else tuple(self.weights[position] for position in positions)

    def check_sparsity(self, source_names: Sequence[str]) -> None:
        """Raise ConfigError unless the hyperparameters of thinning out make sense and fit these sources."""
        raise RuntimeError(f"{type(self).__name__} does not say how it thins out")

    def kept(self, position: int) -> str:
        """Which part of the changes of the source at `position` takes part, in a few words."""
        raise RuntimeError(f"{type(self).__name__} does not say what it keeps")

    def roles(self, source_names: Sequence[str]) -> tuple[str, ...]:
        """The weight of each source and what is kept of it, in words."""
        weights = self.weights or (1.0,) * len(source_names)
        return tuple(f"weight {weight:.6g}, {self.kept(position)}" for position, weight in enumerate(weights))

    def changes(self, inputs: Inputs, base: Tensor) -> list[Tensor]:
        """What is to be thinned out and handed to `combine`: the deltas, with the other sign where signs are elected."""
        return departures(inputs, base) if self.consensus else deltas(inputs, base)

    def combine(self, inputs: Inputs, base: Tensor, changes: Sequence[Tensor], factor: float = 1.0) -> Tensor:
        """The base plus the thinned-out deltas, `factor` times as large: their common rescaling. They may be used up."""
        weights, scale = self.weights_for(inputs.positions), self.scale * factor
        if self.consensus:
            return add_consensus(base, changes, weights, scale, self.normalize)
        if self.normalize:
            weights = normalized(weights, f"the sources that hold tensor '{inputs.name}'")
        return add_task_vectors(base, changes, weights, scale)

    def merge_whole(self, inputs: Inputs) -> Tensor:
        """The merged piece with nothing thinned out: task arithmetic to the bit, where no signs are elected or a single source elects its
        own; a single source of weight 1 (any weight in a mean) at scale 1 comes back as it is."""
        if self.consensus and len(inputs.tensors) > 1:
            base = base_of(inputs)
            return self.combine(inputs, base, self.changes(inputs, base))
        return TaskArithmetic(self.weights, self.scale, self.normalize).merge(inputs)


class ThresholdMethod(SparseMethod):
    """A method that drops changes by their magnitude. Counting rounds find the magnitudes at which it does: row i of what is counted and
    known belongs to source i of the config, and is empty, its magnitudes 0, for a source that lacks the tensor or of which all is kept."""

    density: float | tuple[float, ...]

    @property
    def rounds(self) -> int:
        """Those that find each source's thresholds; none if everything is kept."""
        return ROUNDS if any(density != 1 for density in entries(self.density)) else 0

    def watches(self, round_number: int, block_number: int) -> bool:
        """Whether a round looks at a block: those that find thresholds begin with a sample."""
        return watches(round_number, block_number)

    def likely(self, round_number: int) -> bool:
        """Whether a round is to be reckoned with."""
        return likely(round_number)

    def needs(self, round_number: int, known: Array | None) -> bool:
        """Whether the thresholds are still to be found."""
        return needs(round_number, known)

    def observe(self, round_number: int, inputs: Inputs) -> Array:
        """How many changes of each source have which magnitude, in a row for each source up to the last that holds the tensor."""
        changes = departures(inputs, base_of(inputs))
        rows = [changes[0][:0]] * (inputs.positions[-1] + 1)
        for position, change in zip(inputs.positions, changes, strict=True):
            if at(self.density, position) != 1:
                rows[position] = change
        return count(round_number, rows, None if inputs.known is None else inputs.known[: len(rows)])

    def thresholds(self, inputs: Inputs) -> list[list[float]] | None:
        """What was found for each source in `inputs`; None if nothing of them is dropped."""
        if all(at(self.density, position) == 1 for position in inputs.positions):
            return None
        if inputs.known is None:
            raise RuntimeError(f"tensor '{inputs.name}' has come without its thresholds; {type(self).__name__} needs its counting rounds")
        found: list[list[float]] = inputs.known[list(inputs.positions)].tolist()
        return found


def entries(value: float | tuple[float, ...]) -> tuple[float, ...]:
    """The numbers in a hyperparameter: one for all sources, or one per source."""
    return value if isinstance(value, tuple) else (value,)


def at(value: float | tuple[float, ...], position: int) -> float:
    """The number that counts for the source at `position`."""
    return value[position] if isinstance(value, tuple) else value


def by_source(source_names: Sequence[str], *values: float | tuple[float, ...]) -> list[tuple[str, list[float]]]:
    """For each source, or once where every value is one for all: whose the values are (" of 'math'", or nothing), and the values."""
    if not any(isinstance(value, tuple) for value in values):
        return [("", [at(value, 0) for value in values])]
    return [(f" of '{name}'", [at(value, position) for value in values]) for position, name in enumerate(source_names)]


def check_delta_weights(weights: Sequence[float], source_names: Sequence[str], negative: bool) -> None:
    """Raise ConfigError unless `weights` are one per source, finite, not all 0, and not below 0 unless `negative` ones are allowed."""
    if len(weights) != len(source_names):
        raise ConfigError(f"{len(weights)} weights for {len(source_names)} sources ({', '.join(source_names)}); give one weight per source")
    for name, weight in zip(source_names, weights, strict=True):
        if not math.isfinite(weight):
            raise ConfigError(f"the weight of '{name}' is {weight}; it multiplies the source's changes and must be a finite number")
        if weight < 0 and not negative:
            raise ConfigError(
                f"the weight of '{name}' is {weight}; where signs are elected or a mean is taken weights must not be negative; to take a "
                "source's changes out, use a method without sign election (task_arithmetic, dare_linear) with normalize: false"
            )
    if not any(weights):
        raise ConfigError(f"all weights are 0 ({', '.join(source_names)}), so the result would be the base; give a source weight")


def check_fractions(name: str, value: float | tuple[float, ...], source_names: Sequence[str], meaning: str, zero: bool = False) -> None:
    """Raise ConfigError unless `value` is one number or one per source, each as `check_fraction` wants it."""
    if isinstance(value, tuple) and len(value) != len(source_names):
        raise ConfigError(
            f"{len(value)} values of {name} for {len(source_names)} sources ({', '.join(source_names)}); give one number for all, or one "
            "per source"
        )
    for whose, (each,) in by_source(source_names, value):
        check_fraction(name + whose, each, meaning, zero)


def check_fraction(name: str, value: float, meaning: str, zero: bool = False) -> None:
    """Raise ConfigError unless 0 < value <= 1 (0 itself too where `zero` says so); NaN is refused."""
    if not (0 <= value <= 1) or (value == 0 and not zero):
        raise ConfigError(
            f"{name} is {value}; it is {meaning} and must lie {'between' if zero else 'above'} 0 and {'' if zero else 'at most '}1"
        )
