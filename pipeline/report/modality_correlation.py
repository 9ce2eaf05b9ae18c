"""Whether a distance between weights foretells what a merge scores or loses: Spearman's rank correlation, per seed and over all.

It is taken over all merges, and over one merge made of experts at several steps: there the method is the same, and only the experts differ.
As experts that have learned longer are both farther apart and better, what merging loses against the unmerged model of the same step is the
outcome to look at there, not the score.

Points of one seed share their experts and their evaluation, so they are not independent draws: a correlation comes with its number of
points and no p-value. A metric that is the same for all arms of a seed (a distance between the experts that were merged, say) has no order
there; its correlation is undefined, not 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import sqrt

import numpy as np

from pipeline.report.comparison import Estimate, estimate
from pipeline.report.modality import DECIMALS, Outcome, Setting, When, unmerged_of

LEAST_POINTS = 3
"""Fewer points have a correlation of ±1 whatever they are."""

METRICS = {
    "l2": "L2",
    "relative_l2": "relative L2",
    "cosine": "cosine",
    "sign_disagreement": "signs that differ",
    "ssd": "SSD",
    "truncated_ssd": "truncated SSD",
}
"""Metric -> the words for it, in the order of tables and plots; other metrics follow under their own names."""


class Target(Enum):
    """What a distance is held against, with the words for it."""

    SCORE = "merge only"
    LOST = "lost by merging"
    TUNED = "tuned"

    @property
    def when(self) -> When:
        """Which model's score it takes."""
        return When.TUNED if self is Target.TUNED else When.MERGED


@dataclass(frozen=True)
class Point:
    """One arm and seed: the metric's value and the target's, a fraction."""

    setting: Setting
    outcome: Outcome
    distance: float
    target: float


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rho over `points` pairs with `distinct` values of the metric; None where it is not defined."""

    rho: float | None
    points: int
    distinct: int


@dataclass(frozen=True)
class Correlation:
    """A metric against a target: seed by seed, the mean of the seeds' rho where it is defined, and all points as one."""

    metric: str
    target: Target
    seeds: dict[int, RankCorrelation]
    pooled: RankCorrelation

    @property
    def mean(self) -> Estimate | None:
        """Mean and standard error of rho over the seeds in which it is defined; None for no such seed."""
        found = [each.rho for each in self.seeds.values() if each.rho is not None]
        return estimate(found) if found else None


def ranks(values: Sequence[float]) -> list[int]:
    """Twice the rank of each value, 1 for the smallest, equal values sharing the mean of their ranks: whole numbers, so sums are exact."""
    _, place, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    above = np.cumsum(counts)
    return [int(number) for number in (2 * above - counts + 1)[place]]


def spearman(first: Sequence[float], second: Sequence[float]) -> RankCorrelation:
    """Spearman's rho with ties: Pearson's correlation of the ranks. Undefined for fewer than 3 points or where one side does not vary."""
    count, distinct = len(first), len(set(first))
    if count != len(second):
        raise ValueError(f"{count} values and {len(second)} scores; each value needs its score")
    one, other = ranks(first), ranks(second)
    product = count * sum(a * b for a, b in zip(one, other, strict=True)) - sum(one) * sum(other)
    squares = [count * sum(rank * rank for rank in side) - sum(side) ** 2 for side in (one, other)]
    if count < LEAST_POINTS or 0 in squares:
        return RankCorrelation(None, count, distinct)
    rho = product / sqrt(squares[0] * squares[1])
    return RankCorrelation(min(1.0, max(-1.0, rho)), count, distinct)


def metrics_of(settings: Sequence[Setting]) -> list[str]:
    """The metrics that any outcome holds: those of METRICS in their order, scope by scope; then the others as they come."""
    found = dict.fromkeys(metric for setting in settings for each in setting.outcomes for metric in each.distances)
    scopes = list(dict.fromkeys(scope_of(metric) for metric in found))
    order = list(METRICS)
    known = [metric for metric in found if kind_of(metric) in METRICS]
    known.sort(key=lambda metric: (scopes.index(scope_of(metric)), order.index(kind_of(metric))))
    return known + [metric for metric in found if metric not in known]


def kind_of(metric: str) -> str:
    """ "l2" of "experts/l2"."""
    return metric.rpartition("/")[2]


def scope_of(metric: str) -> str:
    """ "experts" of "experts/l2"; "" of "l2"."""
    return metric.rpartition("/")[0]


def metric_words(metric: str, scoped: bool = True) -> str:
    """ "experts: L2"; "L2" where the scope stands elsewhere."""
    words, scope = METRICS.get(kind_of(metric), kind_of(metric).replace("_", " ")), scope_of(metric).replace("_", " ")
    return f"{scope}: {words}" if scope and scoped else words


def common_scope(metrics: Sequence[str]) -> str | None:
    """The scope that all metrics share ("" for none); None where they differ."""
    scopes = {scope_of(metric) for metric in metrics}
    return scopes.pop() if len(scopes) == 1 else None


def points_of(settings: Sequence[Setting], metric: str, name: str, target: Target) -> list[Point]:
    """Every merge and seed that holds both the metric and the target of the score `name`, in the order of the arms."""
    found = []
    for setting in (each for each in settings if each.is_merge):
        scores, against = setting.by_seed(name, target.when), unmerged_of(settings, setting)
        whole = against.by_seed(name, target.when) if against else {}
        for outcome in setting.outcomes:
            distance, seed = outcome.distances.get(metric), outcome.seed
            if distance is None or seed not in scores or (target is Target.LOST and seed not in whole):
                continue
            value = whole[seed] - scores[seed] if target is Target.LOST else scores[seed]
            found.append(Point(setting, outcome, distance, round(value, DECIMALS)))
    return found


def correlation(points: Sequence[Point], metric: str, target: Target) -> Correlation | None:
    """The rank correlation over `points`, by seed and pooled; None for no points."""
    if not points:
        return None
    seeds = {}
    for seed in sorted({point.outcome.seed for point in points}):
        inside = [point for point in points if point.outcome.seed == seed]
        seeds[seed] = spearman([point.distance for point in inside], [point.target for point in inside])
    pooled = spearman([point.distance for point in points], [point.target for point in points])
    return Correlation(metric, target, seeds, pooled)


def correlations(settings: Sequence[Setting], name: str, merge: str | None = None) -> list[Correlation]:
    """Every metric against every target of the score `name`, over all merges, or over one merge at all its steps."""
    found = []
    for target in Target:
        for metric in metrics_of(settings):
            points = [each for each in points_of(settings, metric, name, target) if merge in (None, each.setting.merge)]
            found.append(correlation(points, metric, target))
    return [each for each in found if each is not None]


def followed(settings: Sequence[Setting]) -> list[str]:
    """The merges that were made of experts at several steps."""
    return list(dict.fromkeys(setting.merge for setting in settings if setting.is_merge and setting.on_the_way))
