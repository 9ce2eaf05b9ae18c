"""The trained weights as the stage found them, for the strategies that hold on to them, and the pull towards them.

A strategy starts before the weights are moved to their device and before they are sharded. So copies are taken whole, in float32, and each
is laid beside its weight (same device, this worker's piece) when the weight is next seen.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from models.parts.names import WRAPPING


def trained_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """The weights of `model` that are trained, each once, by their names in memory, whatever the model was wrapped in."""
    return {WRAPPING.sub("", name): weight for name, weight in model.named_parameters() if weight.requires_grad}


def copies(model: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of the trained weights, float32, on the device they are on."""
    return {name: weight.detach().to(torch.float32, copy=True) for name, weight in trained_weights(model).items()}


def piece(weight: Tensor) -> Tensor:
    """What this worker holds of a weight; a sharded weight's gradient comes back sharded."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def beside(value: Tensor, weight: Tensor) -> Tensor:
    """`value`, whole, as `weight` lies: on its device, this worker's piece."""
    if isinstance(weight, DTensor):
        mesh = weight.device_mesh
        value = distribute_tensor(value.to(mesh.device_type), mesh, weight.placements).to_local()
    return value.to(piece(weight).device)


class Pull:
    """The penalty weight / 2 * sum_i F_i (theta_i - start_i)^2 over the trained weights; F_i is 1 without `importance`.

    A scalar float32, summed in float64. With sharded weights every worker sums its own piece and gets its gradient; the scalar is the sum
    over all workers. Holds start and importance, float32, beside the trained weights.
    """

    def __init__(self, weight: float, start: Mapping[str, Tensor], importance: Mapping[str, Tensor] | None = None) -> None:
        self.weight = weight
        self.whole = {name: (value, importance[name] if importance else None) for name, value in start.items()}
        self.laid: dict[str, tuple[Tensor, Tensor | None]] = {}

    def __call__(self, model: torch.nn.Module) -> Tensor:
        """The penalty on the weights as they are."""
        weights = trained_weights(model)
        for name in sorted(self.whole):
            start, importance = self.whole.pop(name)
            self.laid[name] = (beside(start, weights[name]), None if importance is None else beside(importance, weights[name]))
        own = {name: SquaredDistance.apply(piece(weight), *self.laid[name]) for name, weight in weights.items()}
        total = torch.stack([value for name, value in own.items() if not isinstance(weights[name], DTensor)] or [zero_like(own)]).sum()
        shared = [name for name in own if isinstance(weights[name], DTensor)]
        if shared:
            total = total + over_workers(torch.stack([own[name] for name in shared]).sum(), weights[shared[0]])
        return (self.weight / 2 * total).float()


def zero_like(values: Mapping[str, Tensor]) -> Tensor:
    """A float64 zero on the device of `values`."""
    return torch.zeros((), dtype=torch.float64, device=next(iter(values.values())).device)


def over_workers(own: Tensor, weight: Tensor) -> Tensor:
    """The sum of `own` over the workers that share out `weight`; its gradient is that of `own`."""
    assert isinstance(weight, DTensor)
    total = own.detach().to(weight.device_mesh.device_type, copy=True)  # weights may be offloaded, the workers' network is their devices'
    for dimension, placement in enumerate(weight.placements):
        if placement.is_shard():
            dist.all_reduce(total, group=weight.device_mesh.get_group(dimension))
    return own + (total.to(own.device) - own.detach())


class SquaredDistance(torch.autograd.Function):
    """sum_i F_i (theta_i - start_i)^2, float64. Keeps nothing for the gradient but its inputs, which are there anyway."""

    @staticmethod
    def forward(context: Any, weight: Tensor, start: Tensor, importance: Tensor | None) -> Tensor:
        """The sum of one weight."""
        context.save_for_backward(weight, start, importance)
        squares = (weight - start).square_()
        return (squares if importance is None else squares.mul_(importance)).sum(dtype=torch.float64)

    @staticmethod
    def backward(context: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        """2 F (theta - start), times what comes from above."""
        weight, start, importance = context.saved_tensors
        gradient = weight - start
        if importance is not None:
            gradient.mul_(importance)
        return gradient.mul_(2 * upstream[0]), None, None
