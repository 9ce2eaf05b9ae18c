"""What the tests of LwF, SFA, EWC and L2 share: a stage that is interrupted, and a look at what lies on disk."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from foundation.files import directory_manifest
from models.load import load_model, load_processor
from tasks.registry import get_task
from tasks.task import Split
from trainers.data.collate import AnswerCollator
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.l2 import L2ToStart
from trainers.strategies.lwf import LearningWithoutForgetting
from trainers.strategies.sfa import SequentialAveraging
from trainers.strategy import Adaptation, Context

WEIGHTS = "model.safetensors"
CALM = {"adam_epsilon": 1e-4}
"""Keeps Adam from blowing the rounding of sums up to whole steps of the learning rate."""


SHORT = {"max_steps": 6, "save_steps": 100}
"""For a stage that is not to be interrupted."""


class CrashError(Exception):
    """Thrown in the middle of a stage."""


class Crash(TrainerCallback):
    """Throws after the optimizer's step number `at`, before its checkpoint."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Throw where it is time."""
        if state.global_step == self.at:
            raise CrashError


@dataclass(frozen=True)
class Wrapped:
    """A strategy that may crash after step `at`, and that is given the Fisher files of earlier stages."""

    inner: Any
    at: int = field(default=0, repr=False)
    fishers: tuple[Path, ...] = field(default=(), repr=False)
    rehearses = False
    reads_fisher = False

    def start(self, model: Any, context: Context) -> Adaptation:
        """As the strategy inside does."""
        adaptation = self.inner.start(model, replace(context, fishers=self.fishers))
        return replace(adaptation, callbacks=(*adaptation.callbacks, Crash(self.at)))

    def memory(self, weights: int, trained: int) -> int:
        """As the strategy inside."""
        return self.inner.memory(weights, trained)


@dataclass(frozen=True)
class Everything(FineTuning):
    """A teacher, a penalty and averages, all in one stage."""

    penalised: Any = field(default_factory=lambda: L2ToStart(5.0))

    def start(self, model: Any, context: Context) -> Adaptation:
        """What each of the three asks for."""
        taught = LearningWithoutForgetting(weight=2.0).start(model, context)
        averaged = SequentialAveraging(share=0.3, earlier_weight=0.3).start(model, context)
        return replace(taught, penalty=self.penalised.start(model, context).penalty, callbacks=averaged.callbacks)


def resumed_is_undisturbed(stage: Callable[..., Any], tmp_path: Path, strategy: Any, at: int, resumed_from: int, **options: Any) -> None:
    """Run a stage whole, and another that crashes after step `at` and goes on: equal files."""
    stage("whole", strategy=Wrapped(strategy, **options))
    with pytest.raises(CrashError):
        stage("parts", strategy=Wrapped(strategy, at, **options))
    assert stage("parts", strategy=Wrapped(strategy, **options)).resumed_from_step == resumed_from
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "parts")


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint."""
    return load_file(checkpoint / WEIGHTS)


def changed(before: Path, after: Path) -> set[str]:
    """Names of the tensors whose bits differ."""
    first, second = tensors(before), tensors(after)
    return {name for name in first if not torch.equal(first[name].view(torch.int32), second[name].view(torch.int32))}


def is_trained(name: str) -> bool:
    """Whether the shared short stage trains the tensor with this name on disk."""
    return name.startswith("multi_modal_projector.") or (name.startswith("language_model.") and ".mlp." in name)


def largest_difference(first: Path, second: Path) -> float:
    """The largest difference of two elements."""
    one, two = tensors(first), tensors(second)
    return max((one[name] - two[name]).abs().max().item() for name in one)


def distance(first: Path, second: Path) -> float:
    """The Euclidean distance of two checkpoints."""
    one, two = tensors(first), tensors(second)
    return sum(float((one[name] - two[name]).double().square().sum()) for name in one) ** 0.5


def moved_model(base: Path, scale: float = 0.02) -> Any:
    """The base model after a random move of every weight, the same each time."""
    model = load_model(base, torch.float32)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight += scale * torch.randn(weight.shape, generator=generator)
    return model


def batch_of(base: Path, count: int, task: str = "parity") -> dict[str, torch.Tensor]:
    """The first training examples as a batch."""
    examples = get_task(task).examples(Split.TRAIN, count)
    return AnswerCollator(examples, load_processor(base))(range(count))
