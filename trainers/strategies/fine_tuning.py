"""Plain fine-tuning: train the chosen parts on the answers, leave everything else as it is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainers.strategy import Adaptation, Context

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class FineTuning:
    """Freeze all but the stage's parts."""

    rehearses: ClassVar[bool] = False
    reads_fisher: ClassVar[bool] = False
    adds_weights: ClassVar[bool] = False

    def start(self, model: "PreTrainedModel", context: Context) -> Adaptation:
        """Nothing besides: the model's own loss, no helpers."""
        from models.parts import set_trainable

        return Adaptation(trained=set_trainable(model, context.spec.parts))

    def memory(self, weights: int, trained: int) -> int:
        """Nothing beyond plain fine-tuning."""
        return 0
