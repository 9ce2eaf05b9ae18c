"""The table of merge methods: the name a config uses -> the class that carries it out. One row buys a method its place in every test
suite."""

from collections.abc import Callable

from foundation.errors import ConfigError
from foundation.hints import unknown
from mergers.linear import WeightedAverage, WiseFT
from mergers.merger import Merger

MERGERS: dict[str, Callable[..., Merger]] = {
    "weighted_average": WeightedAverage,
    "wise_ft": WiseFT,
}


def merger_class(name: str) -> Callable[..., Merger]:
    """The class of the method called `name`; ConfigError with the nearest known name if there is none."""
    if name not in MERGERS:
        raise ConfigError(unknown("merge method", name, MERGERS))
    return MERGERS[name]


def method_name(merger: Merger) -> str:
    """The name of a merger's method in the table, or its class name if it is not in there."""
    return next((name for name, kind in MERGERS.items() if type(merger) is kind), type(merger).__name__)
