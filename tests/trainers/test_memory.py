"""The memory a stage is reckoned to take, beside what its tensors really hold."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from models.load import load_model
from trainers.memory import stage_memory
from trainers.spec import Sharding, TrainSpec
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategy import Context


@dataclass(frozen=True)
class WithTeacher(FineTuning):
    """Fine-tuning that holds a second model."""

    def memory(self, weights: int, trained: int) -> int:
        """Its weights in bfloat16."""
        return 2 * weights


def test_it_is_what_weights_gradients_and_moments_take(base: Path, spec: TrainSpec) -> None:
    model = load_model(base, torch.float32)
    trained = sum(FineTuning().start(model, Context(base, spec, 7)).trained.values())
    weights = sum(parameter.numel() for parameter in model.parameters())
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(learning)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
    gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
    held = sum(tensor.nbytes for tensor in [*model.parameters(), *gradients, *moments])
    assert stage_memory(weights, trained, spec, FineTuning(), workers=1) == held


def test_sharding_divides_what_is_shared_out_and_nothing_else(spec: TrainSpec) -> None:
    def told(sharding: Sharding, workers: int) -> int:
        return stage_memory(1000, 100, replace(spec, sharding=sharding), WithTeacher(), workers)

    assert told(Sharding.NONE, 1) == told(Sharding.NONE, 8) == 4 * 1000 + 12 * 100 + 2 * 1000
    assert told(Sharding.GRADIENTS, 8) == 4 * 1000 + 12 * 100 // 8 + 2 * 1000
    assert told(Sharding.FULL, 8) == (4 * 1000 + 12 * 100) // 8 + 2 * 1000
    assert told(Sharding.FULL, 3) * 3 >= 4 * 1000 + 12 * 100 + 3 * 2 * 1000  # rounded up
