"""Elastic Weight Consolidation: hold each weight the more firmly, the more the earlier stages' answers depend on it.

Kirkpatrick et al. 2017 (arXiv 1612.00796, eq. 3) in the online form of Schwarz et al. 2018 (arXiv 1805.06370, section 4): the loss plus

    weight / 2 * sum_i F_i (theta_i - theta_start_i)^2,      F = F_n + decay * F_(n-1) + decay^2 * F_(n-2) + ...

with F_k the diagonal Fisher information of the k-th earlier stage (`trainers/fisher/measure.py`). One quadratic term about the newest
weights stands for all earlier stages. decay 1 forgets none of them, 0 all but the last.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.values import check_not_negative, check_share
from trainers.strategy import Adaptation, Context

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class ElasticWeightConsolidation:
    """Fine-tuning with a penalty by Fisher information. The first stage, before which there is none, has no penalty.

    `weight` 0 is plain fine-tuning, bit for bit. A Fisher is small (mean squared gradients), so useful weights are large; try powers of
    ten. `samples` is how many examples of its task each stage's Fisher is measured on. ConfigError for a weight below 0, a decay outside
    0 to 1, or no samples.
    """

    rehearses: ClassVar[bool] = False
    reads_fisher: ClassVar[bool] = True
    adds_weights: ClassVar[bool] = False

    weight: float = 1000.0
    decay: float = 1.0
    samples: int = 200

    def __post_init__(self) -> None:
        check_not_negative("ewc", "weight", self.weight)
        check_share("ewc", "decay", self.decay)
        if self.samples < 1:
            raise ConfigError(f"strategy ewc: samples is {self.samples}; give 1 or more examples to measure the Fisher information on")

    def start(self, model: "PreTrainedModel", context: Context) -> Adaptation:
        """Freeze as plain fine-tuning does; keep the start's trained weights and their Fisher.

        InputError for a Fisher file that lacks a trained weight, or holds what is no Fisher.
        """
        from trainers.anchor import Pull, copies

        plain = FineTuning().start(model, context)
        if not self.weight or not context.fishers:
            return plain
        return replace(plain, penalty=Pull(self.weight, copies(model), self.importance(model, context.fishers)))

    def importance(self, model: "PreTrainedModel", fishers: tuple[Path, ...]) -> "dict[str, Tensor]":
        """F of every trained weight by its name in memory, float32: the files' sum, each older one times `decay` once more."""
        from trainers.anchor import trained_weights
        from trainers.fisher.statistics import read_statistic

        trained = trained_weights(model)
        total = read_statistic(fishers[0], model, trained)
        for path in fishers[1:]:
            newer = read_statistic(path, model, trained)
            total = {name: value.mul_(self.decay).add_(newer[name]) for name, value in total.items()}
        return total

    def memory(self, weights: int, trained: int) -> int:
        """The start's trained weights and their Fisher in float32, beside the trained ones; from the second stage on."""
        return 8 * trained if self.weight else 0
