"""From ranks to recalls: TR@k, IR@k, their mean, and the standard errors.

The unit that is drawn is the image, and it brings its captions with it: they are alike, so errors are taken over images (cluster-robust;
where images have unequally many captions the mean over captions is a ratio of two sums, linearised. Cochran, Sampling Techniques, on ratio
estimates; for evaluations arXiv 2411.00640). The gallery is taken as given: how a figure would change with other images to choose among is
not in its error.
"""

import math
from collections.abc import Sequence

from evaluators.scores import TaskScore, task_score

RANKS = (1, 5, 10)
"""The k of TR@k and IR@k."""


def recalls(name: str, images: Sequence[int], captions: Sequence[Sequence[int]]) -> dict[str, TaskScore]:
    """`name` -> the mean of the six recalls, then `name/TR@1` … `name/IR@10`.

    `images[i]`: the rank of image i's first right text among all texts; `captions[i]`: of each caption of image i, the rank of its first
    right image among all images. `samples` is the images, but for IR@k the captions.
    """
    parts = {f"{name}/TR@{k}": task_score([float(rank <= k) for rank in images]) for k in RANKS}
    parts |= {f"{name}/IR@{k}": mean_over_groups([[float(rank <= k) for rank in own] for own in captions]) for k in RANKS}
    texts = [found(rank) for rank in images]
    pictures = [[found(rank) for rank in own] for own in captions]
    whole = mean_of_both(texts, pictures)
    return {name: whole, **parts}


def found(rank: int) -> float:
    """The share of the RANKS within which `rank` lies: 1, 2/3, 1/3 or 0. The mean of the recalls of one direction is the mean of these."""
    return sum(rank <= k for k in RANKS) / len(RANKS)


def mean_over_groups(groups: Sequence[Sequence[float]]) -> TaskScore:
    """The mean of all values, and its standard error where the values of a group belong together.

    With residuals eᵢ = Σⱼ (xᵢⱼ − m): √(n/(n−1) · Σ eᵢ²) / M for n groups of M values in all; s/√n for groups of one. `samples` is M.
    """
    count = sum(map(len, groups))
    mean = math.fsum(value for group in groups for value in group) / count
    return TaskScore(mean, _error([residual / count for residual in _residuals(groups, mean)]), count)


def mean_of_both(images: Sequence[float], captions: Sequence[Sequence[float]]) -> TaskScore:
    """Half the mean over images and half the mean over all captions, and its standard error over images; `samples` is the images.

    Both halves of an image's residual are added before they are squared, so what the directions have in common counts.
    """
    n, m = len(images), sum(map(len, captions))
    first = math.fsum(images) / n
    second = math.fsum(value for own in captions for value in own) / m
    residuals = zip(images, _residuals(captions, second), strict=True)
    return TaskScore((first + second) / 2, _error([(image - first) / n / 2 + rest / m / 2 for image, rest in residuals]), n)


def _residuals(groups: Sequence[Sequence[float]], mean: float) -> list[float]:
    """By how much each group's sum differs from what it were with `mean` throughout."""
    return [math.fsum(value - mean for value in group) for group in groups]


def _error(shares: Sequence[float]) -> float:
    """The standard error of a sum of n independent shares whose mean is 0; 0 for one share."""
    n = len(shares)
    return math.sqrt(n / (n - 1) * math.fsum(share**2 for share in shares)) if n > 1 else 0.0
