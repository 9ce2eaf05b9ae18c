"""The contract of a strategy: how a model takes up a task. Plain fine-tuning of chosen parts is the one here.

A strategy is a frozen dataclass whose fields are its hyperparameters; `start` prepares a freshly loaded model and says what the loop
shall do besides. It runs on every worker, before the optimizer is made, and again after a resume: it must not draw on anything but the
model and its fields.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from models.parts import set_trainable

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, TrainerCallback


class LossHook(Protocol):
    """The loss of one micro batch, in place of the model's own."""

    def __call__(self, model: "PreTrainedModel", batch: Mapping[str, "Tensor"], outputs: Any, answer_tokens: "Tensor") -> "Tensor":
        """A scalar. `outputs.loss` is the answer tokens' summed cross entropy over `answer_tokens`, the count in the whole global batch;

        so micro batches and workers add up to the mean. What the hook adds must be scaled likewise: a sum over this micro batch's tokens
        divided by `answer_tokens`.
        """


class Finish(Protocol):
    """What is done to the model after the last step, before it is written; on every worker."""

    def __call__(self, model: "PreTrainedModel") -> None:
        """Change `model` in place."""


@dataclass(frozen=True)
class Adaptation:
    """What a strategy asks of the loop. `None` and empty mean: as it is. `trained` is how many weights are trained, by part."""

    trained: Mapping[str, int]
    loss: LossHook | None = None
    callbacks: "tuple[TrainerCallback, ...]" = ()
    finish: Finish | None = None


class Strategy(Protocol):
    """How a model takes up a task."""

    def start(self, model: "PreTrainedModel") -> Adaptation:
        """Choose what is trained (`requires_grad`) and say what the loop shall do besides; ConfigError where the model has no such part."""


@dataclass(frozen=True)
class FineTuning:
    """Train the named parts on the answers; everything else stays as it is."""

    parts: tuple[str, ...]

    def start(self, model: "PreTrainedModel") -> Adaptation:
        """Freeze all but the parts."""
        return Adaptation(trained=set_trainable(model, self.parts))


STRATEGIES: dict[str, type[Strategy]] = {"fine_tuning": FineTuning}
"""Every strategy by the name an experiment calls it. A new one is one more row."""
