"""One or more examples of every merge method, for the tests that hold for all of them."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mergers import MERGERS, Merger, Need
from mergers.schedule import Schedule, Scheduled

SHAPES = {"embed.weight": (50, 8), "layers.0.w": (33, 7), "layers.1.w": (40, 9), "layers.2.w": (9, 9), "norm": (8,), "scalar": ()}


@dataclass(frozen=True)
class Example:
    """A method with its hyperparameters and the number of sources it is tried on."""

    method: str
    parameters: dict[str, Any] = field(default_factory=dict)
    sources: int = 2
    schedule: dict[str, Any] = field(default_factory=dict)

    @property
    def merger(self) -> Merger:
        """The method."""
        plain = MERGERS[self.method](**self.parameters)
        return Scheduled(plain, tuple(self.schedule.items())) if self.schedule else plain

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sources."""
        return ("previous", "tuned") if self.method == "wise_ft" else ("a", "b", "c")[: self.sources]

    def __str__(self) -> str:
        return f"{self.method}-{self.sources}-" + ",".join(f"{key}={value}" for key, value in (self.parameters | self.schedule).items())


EXAMPLES = [
    Example("weighted_average", {"weights": (0.2, 0.3, 0.5)}, 3),
    Example("wise_ft", {"alpha": 0.3}),
    Example("ema", {"decay": 0.6}, 3),
    Example("slerp", {"weight": 0.3}),
    Example("spherical_average", {"weights": (0.2, 0.3, 0.5)}, 3),
    Example("nuslerp", {"weights": (0.4, 0.6)}),
    Example("karcher", {}, 3),
    Example("model_stock", {}, 3),
    Example("task_arithmetic", {"weights": (0.5, -0.25), "scale": 0.8}),
    Example("sequential_arithmetic", {"scale": 0.4}, 3),
    Example("ties", {"density": 0.3}, 3),
    Example("ties_per_tensor", {"density": 0.3, "weights": (0.4, 0.6)}),
    Example("dare_linear", {"density": 0.4, "weights": (0.5, 0.5), "seed": 3}),
    Example("dare_ties", {"density": 0.4}, 3),
    Example("breadcrumbs", {"density": 0.7, "outliers": 0.05}),
    Example("breadcrumbs_ties", {"density": 0.7, "outliers": 0.05}, 3),
    Example("della_linear", {"density": 0.5}),
    Example("della", {"density": 0.5}, 3),
    Example("sce", {"select": 0.4}, 3),
    Example("fisher", {}, 3),
    Example("regmean", {"missing": "mean"}, 3),
    Example("ties", {"density": (0.3, 1.0, 0.1)}, 3),
    Example("breadcrumbs", {"density": (0.7, 0.4), "outliers": (0.05, 0.1)}),
    Example("dare_ties", {"density": (0.4, 0.9)}),
    Example("slerp", schedule={"weight": Schedule((("layers.*", (0.0, 0.4, 1.0)), ("*", 0.7)))}),
    Example("ties", sources=3, schedule={"density": Schedule((("layers.0.*", 0.2), ("*", 0.5)))}),
]


def random_model(seed: int, dtype: torch.dtype = torch.bfloat16, around: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A small random model, or one close to another."""
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    if around is not None:
        made = {name: around[name].float() + 0.1 * value for name, value in made.items()}
    return {name: value.to(dtype) for name, value in made.items()}


def random_statistics(merger: Merger, seed: int) -> dict[str, Tensor]:
    """What the method asks to have been measured on a source: Fisher values of every element, or a Gram matrix of every matrix's inputs."""
    generator = torch.Generator().manual_seed(1000 + seed)
    assert merger.statistic is not None
    if merger.statistic.per_element:
        return {name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}
    matrices = {name: torch.randn(2 * shape[1], shape[1], generator=generator) for name, shape in SHAPES.items() if len(shape) == 2}
    return {name: rows.T @ rows for name, rows in matrices.items()}


def models_of(example: Example, dtype: torch.dtype = torch.bfloat16) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor] | None]:
    """Sources by name, and a base if the method works with one."""
    base = random_model(0, dtype)
    sources = {name: random_model(seed, dtype, base) for seed, name in enumerate(example.names, start=1)}
    return sources, None if example.merger.base is Need.NO else base


def test_every_method_has_an_example() -> None:
    """A row in the table buys a method the tests here; an example is its price."""
    assert {example.method for example in EXAMPLES} == set(MERGERS)
