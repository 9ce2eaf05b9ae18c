"""Sequential Fine-tuning with Averaging: go back towards the start every so often while training.

SFA (arXiv 2501.05559): with T optimizer steps in the stage, every p T steps and at its end
    theta <- (1 - beta) * theta + beta * theta_start
over the trained weights. `share` is p; `earlier_weight` is beta, the weight of the earlier model, which WiSE-FT here calls alpha. With
p = 1 it is plain fine-tuning followed by one WiSE-FT merge: bit for bit where files hold float32; where they hold half precision, the two
steps round twice and the average here once. Whether the paper keeps the optimizer's moments at an average is not known to us, so
`keep_optimizer_state` lets the user say.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from foundation.errors import ConfigError
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.values import check_share
from trainers.strategy import Adaptation, Context

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class SequentialAveraging:
    """Fine-tuning that averages with its start every round(share * steps) steps (at least 1; halves to the even number) and at the end.

    Where the last of these falls on the last step, it is done once. `earlier_weight` 0 is plain fine-tuning, bit for bit, as long as
    `keep_optimizer_state` is true; false sets AdamW's moments and step count to zero at every average. ConfigError for a share outside
    (0, 1] or an earlier_weight outside [0, 1].
    """

    rehearses: ClassVar[bool] = False
    reads_fisher: ClassVar[bool] = False
    adds_weights: ClassVar[bool] = False

    share: float = 0.25
    earlier_weight: float = 0.5
    keep_optimizer_state: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"strategy sfa: share is {self.share}; give a share of the stage's steps above 0, up to 1")
        check_share("sfa", "earlier_weight", self.earlier_weight)

    def start(self, model: "PreTrainedModel", context: Context) -> Adaptation:
        """Freeze as plain fine-tuning does; keep the start's trained weights where the model is loaded (host memory)."""
        from trainers.anchor import copies
        from trainers.strategies.averaging import Averaging

        plain = FineTuning().start(model, context)
        averaging = Averaging(copies(model), self.every(context.steps), self.earlier_weight, self.keep_optimizer_state)
        return replace(plain, callbacks=(*plain.callbacks, averaging))

    def every(self, steps: int) -> int:
        """How many optimizer steps lie between two averages in a stage of `steps`."""
        return max(1, round(self.share * steps))

    def memory(self, weights: int, trained: int) -> int:
        """The start's trained weights in float32. They stay in host memory; at an average, one tensor at a time visits the device."""
        return 4 * trained
