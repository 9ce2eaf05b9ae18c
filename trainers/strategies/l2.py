"""L2 to the start: train the chosen parts, pulled back to where they started.

L2-SP (Li, Grandvalet and Davoine 2018, arXiv 1802.01483, eq. 2 without the term for new layers): the loss plus
    weight / 2 * ||theta - theta_start||^2
over the trained weights. Every weight is held alike; `ewc.py` holds each by its importance.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.values import check_not_negative
from trainers.strategy import Adaptation, Context

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class L2ToStart:
    """Fine-tuning with a penalty on the distance from the stage's start. `weight` 0 is plain fine-tuning, bit for bit.

    ConfigError for a weight below 0.
    """

    rehearses: ClassVar[bool] = False
    reads_fisher: ClassVar[bool] = False
    adds_weights: ClassVar[bool] = False

    weight: float = 0.01

    def __post_init__(self) -> None:
        check_not_negative("l2", "weight", self.weight)

    def start(self, model: "PreTrainedModel", context: Context) -> Adaptation:
        """Freeze as plain fine-tuning does, and keep the start's trained weights."""
        from trainers.anchor import Pull, copies

        plain = FineTuning().start(model, context)
        return replace(plain, penalty=Pull(self.weight, copies(model))) if self.weight else plain

    def memory(self, weights: int, trained: int) -> int:
        """The start's trained weights in float32, beside the trained ones."""
        return 4 * trained if self.weight else 0
