"""How sure a score is, and whether two models differ: intervals and tests on the same samples, and on a few seeds.

Two models that were asked the same questions are compared question by question, so that what makes a question hard for both drops out.
Everything is drawn from a seed, so the same scores give the same figures. Light to import: scipy comes in where it is used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from foundation.errors import InputError

Array = NDArray[np.float64]

REPEATED = 16
"""Values that each stand so often, on average, are drawn by their counts; others one by one, which is then quicker."""
CHUNK = 100_000
"""Draws that are held in memory at once: few enough to stay in a processor's cache."""


@dataclass(frozen=True)
class Paired:
    """One model before, another after, on the same samples; scores and differences from 0 to 1, `difference` = after − before.

    `low`, `high`: the bootstrap interval of the difference. `p`: of the hypothesis that the two models answer alike. `won`, `lost`: how
    many samples score higher, or lower, after than before. `stderr`: the standard error of the difference, from the differences themselves.
    """

    samples: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    won: int
    lost: int
    stderr: float = 0.0


@dataclass(frozen=True, eq=False)
class Resampled:
    """Two models' scores on the same samples, [samples] each, and the means of the resampled differences, [resamples]."""

    before: Array
    after: Array
    means: Array

    @property
    def differences(self) -> Array:
        """After − before, sample by sample."""
        return self.after - self.before

    @property
    def binary(self) -> bool:
        """Whether all scores are 0 or 1."""
        return all(bool(np.isin(scores, (0.0, 1.0)).all()) for scores in (self.before, self.after))


@dataclass(frozen=True)
class Interval:
    """A mean over `count` values, its standard error and its interval; `low`, `high` and `stderr` are None where one value gives none."""

    mean: float
    low: float | None
    high: float | None
    stderr: float | None
    count: int


def paired(before: Sequence[float], after: Sequence[float], resamples: int = 10_000, seed: int = 0, confidence: float = 0.95) -> Paired:
    """The scores of two models on the same samples, in the same order.

    The interval is the percentile bootstrap of the mean difference (Efron 1979, "Bootstrap methods: another look at the jackknife"; Efron &
    Tibshirani 1993, chapter 13): samples are drawn with replacement, both scores of a sample together. Where all scores are 0 or 1, `p` is
    McNemar's exact p (`mcnemar`), which Dietterich 1998 ("Approximate statistical tests for comparing supervised classification learning
    algorithms") finds sound for two models trained once; otherwise it is that of flipped signs (`sign_flip`). Where all differences are
    equal (as for one sample) the interval is a point and the standard error 0: so few samples say nothing of how sure they are. Raises
    InputError for no samples, lists of unequal length, and scores that are not finite.
    """
    return paired_mean([resample(before, after, resamples, (seed,))], confidence=confidence)


def resample(
    before: Sequence[float] | Array, after: Sequence[float] | Array, resamples: int = 10_000, seed: Sequence[int] = (0,)
) -> Resampled:
    """Two models' scores on the same samples with the bootstrap of their mean difference, to be looked at alone or as a part of a mean.

    Parts of one mean need seeds of their own, as (0, 0), (0, 1): their samples are drawn independently. Raises InputError as `paired` does.
    """
    if len(before) != len(after) or not len(before):
        raise InputError(f"{len(before)} scores before and {len(after)} after cannot be paired; give one of each for at least one sample")
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("a score to be paired is not a finite number; evaluate that model again")
    return Resampled(first, second, resampled_means(second - first, resamples, np.random.default_rng([*seed])))


def paired_mean(parts: Sequence[Resampled], weights: Sequence[float] | None = None, confidence: float = 0.95) -> Paired:
    """The weighted mean over `parts` (tasks, or the categories of one), each two models on samples of its own; as `paired` of one part.

    `weights` w_g sum to 1 (None: every part counts the same). The bootstrap has drawn within each part (it is stratified). Of several
    parts, `p` is that of `sign_flip`, sample by sample. The standard error is √(Σ w_g² se_g²). `samples`, `won` and `lost` are sums.
    Raises InputError for no parts.
    """
    if not parts:
        raise InputError("no scores to compare; give at least one task's")
    shares = [1 / len(parts)] * len(parts) if weights is None else list(weights)
    weighed = list(zip(shares, parts, strict=True))
    low, high = np.quantile(sum(share * part.means for share, part in weighed), [(1 - confidence) / 2, (1 + confidence) / 2])
    won, lost = (sum(int((sign * part.differences > 0).sum()) for part in parts) for sign in (1, -1))
    if len(parts) == 1 and parts[0].binary:
        p = mcnemar(won, lost)
    else:
        p = sign_flip(np.concatenate([share / len(part.before) * part.differences for share, part in weighed]), len(parts[0].means))
    return Paired(
        samples=sum(len(part.before) for part in parts),
        before=math.fsum(share * float(part.before.mean()) for share, part in weighed),
        after=math.fsum(share * float(part.after.mean()) for share, part in weighed),
        difference=math.fsum(share * float(part.differences.mean()) for share, part in weighed),
        low=float(low),
        high=float(high),
        p=p,
        won=won,
        lost=lost,
        stderr=math.sqrt(math.fsum(share**2 * _variance_of_mean(part.differences) for share, part in weighed)),
    )


def resampled_means(values: Array, resamples: int, generator: np.random.Generator) -> Array:
    """The means of `resamples` samples drawn with replacement from `values`, each as large as it, [resamples].

    Of few distinct values (as −1, 0, 1) the counts are drawn, from the multinomial distribution that they have: the same law, sooner.
    """
    count = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) == 1:
        return np.full(resamples, distinct[0])
    if len(distinct) * REPEATED <= count:
        return generator.multinomial(count, counts / count, size=resamples) @ distinct / count
    rows = min(resamples, max(1, CHUNK // count))
    means, drawn = np.empty(resamples), np.empty((rows, count))
    for start in range(0, resamples, rows):
        places = generator.integers(0, count, size=(min(rows, resamples - start), count))
        np.take(values, places, out=drawn[: len(places)])
        means[start : start + rows] = drawn[: len(places)].mean(axis=1)
    return means


def mcnemar(won: int, lost: int) -> float:
    """The exact two-sided p of McNemar 1947 from the samples on which two models differ: Binomial(won + lost, ½); 1 where they never do.

    ("Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 12, eq. 2, in its exact
    form.) Samples that both answer rightly, or both wrongly, say nothing about which of the two is better.
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5))) if won + lost else 1.0


def sign_flip(differences: Sequence[float] | Array, resamples: int = 10_000, seed: int = 0) -> float:
    """The two-sided p of the sum of `differences`, were either sign of each as likely (Fisher 1935, The Design of Experiments, section 21).

    Exact where the differences that are not zero have at most `resamples` patterns of signs; otherwise so many patterns are drawn and the
    one found counts among them, so p is at least 1/(resamples + 1) (Phipson & Smyth 2010). 1 where all differences are zero.
    """
    values = np.abs(np.asarray(differences, dtype=np.float64))
    values = values[values > 0]
    found = abs(math.fsum(differences))
    reached = found - 1e-12 * float(values.sum())  # sums that are equal but for rounding
    if 2 ** min(len(values), 64) <= resamples:
        patterns = np.arange(2 ** len(values))[:, None] >> np.arange(len(values)) & 1
        return float((np.abs((2 * patterns - 1) @ values) >= reached).mean())
    sums = _signed_sums(values, resamples, np.random.default_rng([seed, 1 << 32]))  # a stream apart from the bootstrap's
    return float((1 + (np.abs(sums) >= reached).sum()) / (1 + resamples))


def _signed_sums(values: Array, resamples: int, generator: np.random.Generator) -> Array:
    """Σ ±values with random signs, [resamples]; the signs of equal values are drawn together, as a binomial count."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) * REPEATED <= len(values):
        signs = 2 * generator.binomial(counts, 0.5, size=(resamples, len(counts))) - counts
        return np.asarray(signs @ distinct)
    rows = max(1, CHUNK // len(values))
    parts = []
    for start in range(0, resamples, rows):
        drawn = generator.integers(0, 256, size=(min(rows, resamples - start), -(-len(values) // 8)), dtype=np.uint8)
        positive = np.unpackbits(drawn, axis=1, count=len(values))
        parts.append(2 * (positive.astype(np.float64) @ values) - values.sum())
    return np.concatenate(parts)


def holm(ps: Sequence[float]) -> list[float]:
    """Each p adjusted for all of `ps` together, in their order: the chance that mere noise brings any below 0.05 is at most 5 %.

    Holm 1979, "A simple sequentially rejective multiple test procedure": the k-th smallest of m is multiplied by m − k + 1, and none is
    less than a smaller one's.
    """
    adjusted, highest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = highest
    return adjusted


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of a few values (seeds, orders) with its interval by Student's t: mean ± t(n − 1) · s/√n, s with n − 1 degrees of freedom.

    Student 1908, "The probable error of a mean"; exact where the values are normal. Raises InputError for no values.
    """
    if not len(values):
        raise InputError("no values to take a mean of")
    mean, count = _mean(values), len(values)
    if count == 1:
        return Interval(mean, None, None, None, 1)
    stderr = math.sqrt(_variance_of_mean(np.asarray(values, dtype=np.float64)))
    half = student_t(count - 1, confidence) * stderr
    return Interval(mean, mean - half, mean + half, stderr, count)


@cache
def student_t(freedom: int, confidence: float = 0.95) -> float:
    """How many standard errors an interval reaches to either side, with `freedom` degrees of freedom: 12.7 with 1, 4.30 with 2."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance_of_mean(values: Array) -> float:
    """s²/n, s² with n − 1 degrees of freedom; 0 for one value."""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0
