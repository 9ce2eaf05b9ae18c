"""Which point comes next: all of a grid, draws from a seed, or Optuna's next suggestion.

A point's number says where it stands in the list. The points of a grid and of random draws depend on the spec alone. Optuna's (TPE,
Bergstra et al. 2011) depend on the spec and on which trials it has been told when it is asked: with one worker that is always all before,
so an interrupted search goes on to the same list; with several it depends on which of them ends first.
"""

import math
import random
from collections.abc import Sequence
from itertools import product
from typing import Any, Protocol

from foundation.errors import ConfigError
from pipeline.search.points import METHOD, axes_of, methods_of
from pipeline.search.spec import Algorithm, Axis, Point, SearchSpec, Trial, Value

MOST_POINTS = 10_000
"""The largest grid that is tried."""
TRIES = 100
"""How often a point is drawn again that was there before."""
STARTUP = 10
"""Optuna's first trials, at most, are random; of a short search a third."""


class Chooser(Protocol):
    """Gives the points of a search, by number, and hears what became of them."""

    total: int

    def ask(self, number: int) -> Point | None:
        """The point of this number; None if there is none to try any more."""
        ...

    def tell(self, trial: Trial) -> None:
        """Hear of a trial that has ended, of this search or of one that it goes on from."""
        ...


def chooser_of(spec: SearchSpec, workers: int = 1) -> Chooser:
    """The chooser of a spec's algorithm. ConfigError for more points than there are, or than could be tried."""
    if spec.algorithm is Algorithm.GRID:
        return Listed(grid_points(spec))
    check_enough(spec)
    return Listed(random_points(spec)) if spec.algorithm is Algorithm.RANDOM else Suggested(spec, workers)


class Listed:
    """Points that are known ahead."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = tuple(points)
        self.total = len(self.points)

    def ask(self, number: int) -> Point | None:
        """As listed."""
        return self.points[number] if number < self.total else None

    def tell(self, trial: Trial) -> None:
        """Changes nothing."""


def grid_points(spec: SearchSpec) -> list[Point]:
    """All combinations, the last axis fastest; method by method where that is searched."""
    count = sum(len_of_grid(spec, method) for method in methods_of(spec))
    if count > MOST_POINTS:
        raise ConfigError(f"search: the grid has {count:,} points, more than {MOST_POINTS:,}; take fewer points, or draw at random")
    return [
        placed(spec, method, values)
        for method in methods_of(spec)
        for values in product(*(axis.grid(spec.points) for axis in axes_of(spec, method)))
    ]


def len_of_grid(spec: SearchSpec, method: str) -> int:
    """How many points a grid has of one method."""
    return math.prod(len(axis.values) or spec.points for axis in axes_of(spec, method))


def check_enough(spec: SearchSpec) -> None:
    """Raise ConfigError where there are fewer points than trials."""
    if any(not axis.values for method in methods_of(spec) for axis in axes_of(spec, method)):
        return
    there = sum(len_of_grid(spec, method) for method in methods_of(spec))
    if there < spec.trials:
        raise ConfigError(f"search: {spec.trials} trials of {there} points that there are; use a grid, or {there} trials at most")


def random_points(spec: SearchSpec) -> list[Point]:
    """As many different points as there are trials; point n is the same however many follow it."""
    found: list[Point] = []
    for number in range(spec.trials):
        for attempt in range(TRIES):
            point = draw(spec, random.Random(f"{spec.seed}/{number}/{attempt}"))
            if point not in found:
                break
        else:
            point = untried(spec, found)
        found.append(point)
    return found


def draw(spec: SearchSpec, source: random.Random) -> Point:
    """A point, uniform in every axis."""
    method = source.choice(methods_of(spec))
    return placed(spec, method, [one_of(axis, source) for axis in axes_of(spec, method)])


def one_of(axis: Axis, source: random.Random) -> Value:
    """A value of an axis."""
    if axis.values:
        return source.choice(axis.values)
    assert axis.low is not None
    assert axis.high is not None
    return source.uniform(axis.low, axis.high)


def untried(spec: SearchSpec, tried: Sequence[Point]) -> Point:
    """The first point of the grid that has not been tried: for axes of few values, of which draws find the last ones late."""
    return next(point for point in grid_points(spec) if point not in tried)


def placed(spec: SearchSpec, method: str, values: Sequence[Value]) -> Point:
    """A point from the values of a method's axes, in the order of the spec."""
    given: dict[str, Value] = dict(zip([axis.name for axis in axes_of(spec, method)], values, strict=True)) | {METHOD: method}
    return {axis.name: given[axis.name] for axis in spec.axes if axis.name in given}


class Suggested:
    """Points by Optuna's TPE, asked one by one. A point that was there before is not tried again."""

    def __init__(self, spec: SearchSpec, workers: int = 1) -> None:
        try:
            import optuna
        except ImportError as error:
            raise ConfigError("search: the algorithm optuna needs the package of that name; pip install optuna") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.optuna = optuna
        self.spec = spec
        self.workers = workers
        self.total = spec.trials
        self.study = optuna.create_study(direction="maximize")
        self.asked: dict[int, Any] = {}
        self.tried: list[Point] = []

    def ask(self, number: int) -> Point | None:
        """A suggestion from what has been told so far, by a sampler whose seed is the number's own."""
        if number >= self.total:
            return None
        for attempt in range(TRIES):
            self.study.sampler = self.sampler(f"{self.spec.seed}/{number}/{attempt}")
            asked = self.study.ask()
            point = self.suggest(asked)
            if point not in self.tried:
                self.tried.append(point)
                self.asked[number] = asked
                return point
            self.study.tell(asked, state=self.optuna.trial.TrialState.FAIL)
        point = untried(self.spec, self.tried)
        self.tried.append(point)
        return point

    def sampler(self, seed: str) -> Any:
        """TPE with a seed of its own."""
        startup = min(STARTUP, max(1, self.spec.trials // 3))
        chosen = random.Random(seed).randrange(2**32)
        return self.optuna.samplers.TPESampler(seed=chosen, n_startup_trials=startup, constant_liar=self.workers > 1)

    def suggest(self, asked: Any) -> Point:
        """The point of an Optuna trial: the method first, then what it has."""
        methods = methods_of(self.spec)
        searched = any(axis.name == METHOD for axis in self.spec.axes)
        method = asked.suggest_categorical(METHOD, methods) if searched else methods[0]
        values = [
            asked.suggest_categorical(axis.name, axis.values) if axis.values else asked.suggest_float(axis.name, axis.low, axis.high)
            for axis in axes_of(self.spec, method)
        ]
        return placed(self.spec, method, values)

    def tell(self, trial: Trial) -> None:
        """A trial that was stopped counts as pruned where it was."""
        if trial.point not in self.tried:
            self.tried.append(trial.point)
        state = self.optuna.trial.TrialState.PRUNED if trial.stopped else self.optuna.trial.TrialState.COMPLETE
        asked = self.asked.pop(trial.number, None)
        if asked is None:
            self.study.add_trial(self.past(trial, state))
        elif trial.stopped:
            asked.report(trial.value, trial.samples)
            self.study.tell(asked, state=state)
        else:
            self.study.tell(asked, trial.value)

    def past(self, trial: Trial, state: Any) -> Any:
        """A trial of an earlier start, as Optuna knows it."""
        kinds = self.optuna.distributions
        spaces = {
            axis.name: kinds.CategoricalDistribution(axis.values) if axis.values else kinds.FloatDistribution(axis.low, axis.high)
            for axis in self.spec.axes
            if axis.name in trial.point
        }
        steps = {trial.samples: trial.value} if trial.stopped else {}
        value = None if trial.stopped else trial.value
        return self.optuna.trial.create_trial(
            state=state, value=value, params=dict(trial.point), distributions=spaces, intermediate_values=steps
        )
