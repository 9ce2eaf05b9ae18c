"""The table of merge methods: the name a config uses -> the class that carries it out. One row buys a method its place in every test
suite.

A row names its class by file, and the file is read when the row is used: so the table itself costs nothing to import.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any, cast

from foundation.errors import ConfigError
from foundation.hints import unknown
from mergers.merger import Merger
from mergers.schedule import Scheduled, spelled

ROWS = {
    "weighted_average": "linear.WeightedAverage",
    "wise_ft": "linear.WiseFT",
    "ema": "ema.Ema",
    "slerp": "slerp.Slerp",
    "nuslerp": "slerp.NuSlerp",
    "spherical_average": "slerp.SphericalAverage",
    "karcher": "karcher.Karcher",
    "model_stock": "model_stock.ModelStock",
    "task_arithmetic": "task_arithmetic.TaskArithmetic",
    "sequential_arithmetic": "sequential_arithmetic.SequentialArithmetic",
    "ties": "ties.Ties",
    "ties_per_tensor": "ties.TiesPerTensor",
    "dare_linear": "dare.DareLinear",
    "dare_ties": "dare.DareTies",
    "breadcrumbs": "breadcrumbs.Breadcrumbs",
    "breadcrumbs_ties": "breadcrumbs.BreadcrumbsTies",
    "della_linear": "della.DellaLinear",
    "della": "della.Della",
    "sce": "sce.Sce",
    "fisher": "fisher.Fisher",
    "regmean": "regmean.RegMean",
}
"""Name -> file in `methods/` and class in it."""


class _Table(Mapping[str, Callable[..., Merger]]):
    """`ROWS` with the classes themselves."""

    def __getitem__(self, name: str) -> Callable[..., Merger]:
        module, _, kind = ROWS[name].partition(".")
        return cast(Callable[..., Merger], getattr(import_module(f"mergers.methods.{module}"), kind))

    def __iter__(self) -> Iterator[str]:
        return iter(ROWS)

    def __len__(self) -> int:
        return len(ROWS)


MERGERS: Mapping[str, Callable[..., Merger]] = _Table()
"""Name -> class of every method."""


def merger_class(name: str) -> Callable[..., Merger]:
    """The class of the method called `name`; ConfigError with the nearest known name if there is none."""
    if name not in ROWS:
        raise ConfigError(unknown("merge method", name, ROWS))
    return MERGERS[name]


def method_name(merger: Merger) -> str:
    """The name of a merger's method in the table, or its class name if it is not in there."""
    if isinstance(merger, Scheduled):
        return method_name(merger.method)
    kind = type(merger)
    place = f"{kind.__module__.removeprefix('mergers.methods.')}.{kind.__qualname__}"
    return next((name for name, row in ROWS.items() if row == place), kind.__name__)


def hyperparameters(merger: Any) -> dict[str, Any]:
    """A merger's hyperparameters by name; what differs per tensor stands as text."""
    if isinstance(merger, Scheduled):
        return hyperparameters(merger.method) | {
            name: spelled(value) + " scaled to sum to 1" * (name in merger.normalized) for name, value in merger.parameters
        }
    return {field.name: getattr(merger, field.name) for field in fields(merger)}
