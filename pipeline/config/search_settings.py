"""The keys of a search: over which values, how they are chosen, and what a trial is judged by. Trials are asked validation questions only.

search: {low: 0, high: 1, points: 11, goal: average, samples: 200}          # in a wise_ft experiment; `alpha: {search: {…}}` is the same
search: {depth: 3, algorithm: optuna, trials: 30, goal: balanced, weight: 0.5}     # three alphas over the depth of the model

Which other parameters of a stage's merge are searched is said at the merge (`stage_merge.py`); `search` then says how.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foundation.errors import ConfigError
from pipeline.config.kinds import Count, Flag, Fraction, NotNegative, Positive, Settings, WholeNumber
from pipeline.search.spec import Algorithm, Axis, Goal, SearchSpec


class HowSearched(Settings):
    """How points are chosen and trials judged: `points` is what a grid takes of each range, `trials` how many are tried otherwise."""

    algorithm: Literal["grid", "random", "optuna"] = "grid"
    points: Count = 11
    trials: Count = 11
    goal: Literal["average", "stream", "held_out", "new", "balanced"] = "average"
    weight: Fraction = 0.5
    samples: Count = 200
    halving: Flag = False
    workers: Count = 1
    gpus: NotNegative = 0

    def over(self, method: str, axes: tuple[Axis, ...], fixed: tuple[tuple[str, Any], ...], seed: int) -> SearchSpec:
        """What is tried and judged by what; ConfigError for what no search could honour."""
        return SearchSpec(
            method,
            axes,
            fixed,
            Algorithm(self.algorithm),
            self.points,
            self.trials,
            Goal(self.goal),
            self.weight,
            self.samples,
            self.halving,
            seed,
        )


class AlphaSearch(HowSearched):
    """The weight of the previous stage's model, searched after every stage. `depth` k > 1: k alphas spread over the model's layers."""

    low: Fraction = 0.0
    high: Fraction = 1.0
    values: list[Fraction] = []  # noqa: RUF012
    depth: Count = 1

    @model_validator(mode="after")
    def _honoured(self) -> "AlphaSearch":
        try:
            self.spec(seed=0)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def own(self) -> tuple[str, ...]:
        """The keys that are given and say what is tried of alpha."""
        return tuple(sorted(self.model_fields_set - set(HowSearched.model_fields)))

    def spec(self, seed: int) -> SearchSpec:
        """The search for alpha; ConfigError for what no search could honour."""
        names = ("alpha",) if self.depth == 1 else tuple(f"alpha.{place}" for place in range(self.depth))
        if self.values:
            axes = tuple(Axis(name, values=tuple(self.values)) for name in names)
        else:
            axes = tuple(Axis(name, self.low, self.high) for name in names)
        return self.over("wise_ft", axes, (), seed)


class AdaptiveAlpha(Settings):
    """alpha from the weights alone, by the rule `isotropic` or `along_past`; `first` at the first stage, which has no past to go by.

    `blocks` > 0: an alpha for each of so many blocks of layers.
    """

    rule: Literal["isotropic", "along_past"] = "isotropic"
    blocks: WholeNumber = 0
    first: Fraction = 0.5


class RateSearch(Settings):
    """Learning rates that a whole stream is trained with; the one whose last model answers most validation questions is kept."""

    rates: Annotated[list[Positive], Field(min_length=2)]
    samples: Count = 200

    @model_validator(mode="after")
    def _each_once(self) -> "RateSearch":
        if len(set(self.rates)) < len(self.rates):
            raise ValueError(f"rates {self.rates} name one rate twice; name each once")
        return self
