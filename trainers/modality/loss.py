"""The loss of a stage: the weighted sum of its objectives, over forward passes that they share.

    L = sum_o weight_o * L_o
A `Learner` is what the loop and DDP call: a module around the model, whose forward gives losses instead of states. The model inside stays
as it is, with its parameters' names.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainers.modality.objectives.passes import Passes
from trainers.modality.objectives.table import OBJECTIVES
from trainers.modality.spec import ModalitySpec, Objective


class Learner(nn.Module):
    """`module` with the objectives of a stage."""

    def __init__(self, module: PreTrainedModel, modality: ModalitySpec) -> None:
        super().__init__()
        self.module = module
        self.modality = modality

    def forward(self, batch: Mapping[str, Tensor], shares: Mapping[Objective, float]) -> tuple[Tensor, Tensor]:
        """The loss of one micro batch, and, without gradient, each objective's own before it is weighed [objectives]; float32.

        `shares`: see `Passes`. The mean of the loss over micro batches and workers is the step's.
        """
        passes = Passes(self.module, batch, shares, self.modality.train.seed)
        losses = [OBJECTIVES[name].loss(passes) for name, _ in self.modality.objectives]
        weights = [weight for _, weight in self.modality.objectives]
        total = sum((weight * loss for weight, loss in zip(weights[1:], losses[1:], strict=True)), weights[0] * losses[0])
        return total, torch.stack([loss.detach() for loss in losses])


def shares(modality: ModalitySpec, counts: Mapping[Objective, int], parts: int) -> dict[Objective, float]:
    """What one target weighs, by objective: `parts` micro batches of all workers, over all targets in them; 0 where there are none."""
    return {name: parts / counts[name] if counts[name] else 0.0 for name in counting(modality)}


def counting(modality: ModalitySpec) -> tuple[Objective, ...]:
    """The stage's objectives whose mean is over targets, of which no two micro batches have equally many."""
    return tuple(name for name, _ in modality.objectives if OBJECTIVES[name].targets is not None)


def targets(modality: ModalitySpec, batch: Mapping[str, Tensor]) -> list[int]:
    """How many targets a micro batch has, for each objective of `counting`."""
    found = []
    for name in counting(modality):
        count = OBJECTIVES[name].targets
        assert count is not None
        found.append(count(batch))
    return found
