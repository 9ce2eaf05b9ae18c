"""What the tests of methods that thin out task vectors share: models on a coarse grid, the formula written out naively, and examples."""

import math

import torch

from mergers.methods.breadcrumbs import Breadcrumbs, BreadcrumbsTies
from mergers.methods.dare import DareLinear, DareTies
from mergers.methods.della import Della, DellaLinear
from mergers.methods.sce import Sce
from mergers.methods.ties import Ties, TiesPerTensor

PER_SOURCE = [
    Ties((1.0, 0.3, 0.1)),
    TiesPerTensor((0.5, 1.0, 0.2), (0.2, 0.3, 0.5)),
    DareLinear((0.4, 1.0, 0.9), seed=1),
    DareTies((0.2, 0.5, 1.0), seed=1),
    Breadcrumbs((1.0, 0.6, 0.8), (0.0, 0.2, 0.05)),
    BreadcrumbsTies(0.6, (0.3, 0.0, 0.1)),
    DellaLinear((0.5, 0.3, 1.0), (0.2, 0.4, 0.0)),
    Della((0.4, 0.3, 0.7)),
]
"""Methods for three sources that thin each out differently."""
ALL = [
    *PER_SOURCE,
    Ties(0.3),
    Ties(0.3, (0.2, 0.3, 0.5), 0.8, normalize=False),
    TiesPerTensor(0.3),
    DareLinear(0.4, seed=1),
    DareTies(0.4, seed=1),
    Breadcrumbs(0.6, 0.1),
    BreadcrumbsTies(0.6, 0.1),
    DellaLinear(0.5),
    Della(0.5),
    Sce(0.4),
    Sce(),
]


def grid_models(count, shapes, dtype, seed, step=1):
    """A base and `count` sources with values in eighths and many repeats; changes are multiples of `step` eighths."""
    generator = torch.Generator().manual_seed(seed)

    def made(low, high):
        return {name: (torch.randint(low, high + 1, shape, generator=generator) / 8).to(dtype) for name, shape in shapes.items()}

    base = made(-8, 8)
    changes = [made(-3, 3) for _ in range(count)]
    return base, {"abc"[i]: {name: base[name] + step * change[name] for name in shapes} for i, change in enumerate(changes)}


def naive_merge(base, sources, dropped, weights, scale, consensus, normalize, exact=True):
    """The formula, one element at a time; `dropped(source, tensor, deltas)` thins out a flat list of one tensor's deltas.

    NaN where the vote hangs on a rounding, if the thinned deltas are not `exact`.
    """
    weights = weights or [1.0] * len(sources)
    merged = {}
    for name, anchor in base.items():
        thinned = []
        for source, tensors in sources.items():
            flat = (tensors[name].double() - anchor.double()).view(-1).tolist()
            thinned.append(dropped(source, name, flat))
        result = []
        for place, value in enumerate(anchor.double().view(-1).tolist()):
            column = [(weight, delta[place]) for weight, delta in zip(weights, thinned, strict=True)]
            if consensus:
                vote = sum(weight * delta for weight, delta in column)
                if not exact and 0 < sum(abs(weight * delta) for weight, delta in column) > 1e5 * abs(vote):
                    result.append(math.nan)
                    continue
                column = [(weight, delta) for weight, delta in column if delta * vote > 0]
            total = sum(weight * delta for weight, delta in column)
            if normalize:
                divisor = sum(weight for weight, _ in column)
                total = total / divisor if divisor else 0.0
            result.append(value + scale * total)
        merged[name] = torch.tensor(result, dtype=torch.float64).view(anchor.shape)
    return merged


def kept_band(deltas, first, last):
    """The deltas whose magnitude lies between those of two ranks (1 = largest)."""
    ordered = sorted((abs(delta) for delta in deltas), reverse=True)
    return [delta if ordered[last - 1] <= abs(delta) <= ordered[first - 1] else 0.0 for delta in deltas]


def assert_close(made, expected, dtype, largest=1):
    """Equal but for up to 8 roundings of quotients and products in the compute dtype, and one of the result in its own. `largest` is how
    large terms can be that cancel."""
    compute = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    for name, tensor in made.items():
        assert tensor.dtype == dtype
        allowed = torch.finfo(dtype).eps / 2 * expected[name].abs() + 8 * compute * (largest + expected[name].abs())
        assert (((tensor.double() - expected[name]).abs() <= allowed) | expected[name].isnan()).all()
        assert not tensor.isnan().any()


def normal_models(count, dtype, seed=0, elements=3000):
    """A base and sources that differ from it as a fine-tuned model does."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(elements, generator=generator) * 0.02
    made = {"abc"[index]: {"w": (base + torch.randn(elements, generator=generator) * 0.002).to(dtype)} for index in range(count)}
    return {"w": base.to(dtype)}, made
