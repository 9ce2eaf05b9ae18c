"""The contract of a strategy: how a model takes up a task. The strategies themselves are in `trainers/strategies/`.

A strategy is a frozen dataclass whose fields are its hyperparameters; `start` prepares a freshly loaded model and says what the loop
shall do besides. It runs on every worker, before the optimizer is made, and again after a resume: it must not draw on anything but the
model, its fields and its context. Light to import: configuration makes strategies before torch is there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, TrainerCallback

    from tasks.task import Task
    from trainers.spec import TrainSpec


@dataclass(frozen=True)
class Context:
    """What a strategy may look at besides the model.

    `start` is the checkpoint the stage goes on from (on disk, as `model` was loaded); `steps` is how many optimizer steps the whole stage
    takes; `fishers` are the Fisher files of the earlier stages' models, oldest first (see `trainers/fisher/measure.py`).
    """

    start: Path
    spec: "TrainSpec"
    steps: int
    fishers: tuple[Path, ...] = ()


class LossHook(Protocol):
    """The loss of one micro batch, in place of the model's own."""

    def __call__(self, model: "PreTrainedModel", batch: Mapping[str, "Tensor"], outputs: Any, answer_tokens: "Tensor") -> "Tensor":
        """A scalar. `outputs.loss` is the answer tokens' summed cross entropy over `answer_tokens`, the count in the whole global batch;

        so micro batches and workers add up to the mean. What the hook adds must be scaled likewise: a sum over this micro batch's tokens
        divided by `answer_tokens`. A penalty on the weights belongs to a step, not to tokens: see `penalty`.
        """


class Penalty(Protocol):
    """A loss of the weights alone. Its gradient is added once per optimizer step to that of the global batch, before clipping; its value

    is logged beside the loss, not in it.
    """

    def __call__(self, model: "PreTrainedModel") -> "Tensor":
        """A scalar float32 that depends on the trained weights, the same on every worker.

        Called on every worker with the model as it learns, never wrapped in DDP. Sharded, its weights are DTensors: the gradient is then to
        be that of the worker's own pieces (see `trainers/anchor.py`).
        """


class Finish(Protocol):
    """What is done to the model after the last step, before it is written; on every worker."""

    def __call__(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """The model to write: `model`, changed in place, or the one inside it."""


@dataclass(frozen=True)
class Adaptation:
    """What a strategy asks of the loop. `None` and empty mean: as it is.

    `trained` is how many weights are trained, by part. `model` takes the loaded model's place (adapters around it). `extras` writes further
    files into the finished checkpoint directory, on the first worker, before it is published.
    """

    trained: Mapping[str, int]
    model: "PreTrainedModel | None" = None
    loss: LossHook | None = None
    penalty: Penalty | None = None
    callbacks: "tuple[TrainerCallback, ...]" = field(default=())
    finish: Finish | None = None
    extras: Callable[[Path], None] | None = None


class Strategy(Protocol):
    """How a model takes up a task."""

    rehearses: ClassVar[bool]
    """Whether a stage also learns from the tasks of the stages before it."""
    reads_fisher: ClassVar[bool]
    """Whether a stage is given the Fisher information of the stages before it."""
    adds_weights: ClassVar[bool]
    """Whether other weights than those of the stage's parts learn, which `start` adds to the model (on the `meta` device too)."""

    def start(self, model: "PreTrainedModel", context: Context) -> Adaptation:
        """Choose what is trained (`requires_grad`) and say what the loop shall do besides; InputError where the model has no such part."""

    def memory(self, weights: int, trained: int) -> int:
        """Bytes per worker that the strategy holds beyond plain fine-tuning, for a model of `weights`, `trained` of them trained."""


@dataclass(frozen=True)
class Learning:
    """What one stage is to learn and how: everything but where the weights come from and go to.

    `earlier` are the tasks of the stages before, oldest first, for a strategy that rehearses them; `fishers` their Fisher files, for one
    that reads them.
    """

    task: "Task"
    spec: "TrainSpec"
    strategy: Strategy
    earlier: "tuple[Task, ...]" = ()
    fishers: tuple[Path, ...] = ()
