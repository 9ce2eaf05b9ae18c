"""The averages of SFA (`trainers/strategies/sfa.py`), as a callback of the loop."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainers.anchor import beside, piece, trained_weights


class Averaging(TrainerCallback):
    """After every `every`-th optimizer step and the last one, averages the trained weights with their start.

    It comes right after the optimizer, before any other callback hears that the step has ended: so what is saved of a step (checkpoint,
    milestone, output) is always saved averaged, and a resumed stage goes on as an undisturbed one.
    """

    def __init__(self, start: Mapping[str, Tensor], every: int, earlier_weight: float, keep_optimizer_state: bool) -> None:
        self.start = start
        self.every = every
        self.earlier_weight = earlier_weight
        self.keep_optimizer_state = keep_optimizer_state

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        """Average if this step is one to average at."""
        step = state.global_step + 1  # counted up after this call
        if step % self.every and step != state.max_steps:
            return
        with torch.no_grad():
            for name, weight in trained_weights(model).items():
                own = piece(weight)
                own.copy_(interpolate(beside(self.start[name], weight), own, self.earlier_weight))
        if not self.keep_optimizer_state:
            reset(optimizer)


def interpolate(start: Tensor, tuned: Tensor, earlier_weight: float) -> Tensor:
    """earlier_weight * start + (1 - earlier_weight) * tuned in float32, by the operation of a WiSE-FT merge; equal elements stay."""
    if earlier_weight in (0.0, 1.0):
        return start if earlier_weight else tuned
    result = torch.lerp(start, tuned, 1.0 - earlier_weight)
    # Below 0.5 lerp adds to its first argument and turns two -0.0 into +0.0; a merge keeps them, by setting the sign both have.
    return torch.where(torch.signbit(start) & torch.signbit(tuned), -result.abs(), result) if earlier_weight > 0.5 else result


def reset(optimizer: Any) -> None:
    """Set the moments and step counts of every weight to zero, as before the first step."""
    for state in optimizer.state.values():
        for value in state.values():
            if torch.is_tensor(value):
                value.zero_()
