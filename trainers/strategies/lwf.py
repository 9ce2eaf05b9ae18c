"""Learning without Forgetting: learn the new answers, and stay close to what the stage's start would have said.

Li and Hoiem 2016 (arXiv 1606.09282, eq. 2 and 3; the temperature of Hinton et al. 2015, arXiv 1503.02531): the loss plus
    weight * T^2 * KL(softmax(teacher / T) || softmax(student / T))
for each answer token, as a mean over the answer tokens of the global batch, like the loss. The teacher is the stage's start. Li and Hoiem
take the cross entropy with the softened teacher; it differs from the KL by the teacher's entropy, which has no gradient.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.values import check_not_negative, check_positive
from trainers.strategy import Adaptation, Context

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LearningWithoutForgetting:
    """Fine-tuning with the start as a teacher. `weight` 0 is plain fine-tuning, bit for bit, and loads no teacher.

    ConfigError for a weight below 0 or a temperature that is not above 0.
    """

    rehearses: ClassVar[bool] = False
    reads_fisher: ClassVar[bool] = False
    adds_weights: ClassVar[bool] = False

    weight: float = 1.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        check_not_negative("lwf", "weight", self.weight)
        check_positive("lwf", "temperature", self.temperature)

    def start(self, model: "PreTrainedModel", context: Context) -> Adaptation:
        """Freeze as plain fine-tuning does, and load the start once more as the teacher; it is no part of the model."""
        plain = FineTuning().start(model, context)
        if not self.weight:
            return plain
        import torch

        from models.load import load_model
        from trainers.strategies.distillation import Distillation

        teacher = load_model(context.start, torch.float32).requires_grad_(False)
        return replace(plain, loss=Distillation(teacher, self.weight, self.temperature, context.spec.precision))

    def memory(self, weights: int, trained: int) -> int:
        """The teacher in float32, whole on every worker. What a batch takes comes on top: its logits, for answer tokens alone."""
        return 4 * weights if self.weight else 0
