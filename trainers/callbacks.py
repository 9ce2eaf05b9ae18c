"""What the loop does besides learning: say how it goes, stop at a loss that is no number, and make checkpoints count.

Neither keeps state of its own: the losses of the open window lie in the Trainer's state, which a checkpoint carries, so a resumed stage
logs the same values at the same steps as an undisturbed one.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from foundation.errors import InputError
from trainers.resume import keep_newest, seal

Log = Callable[[int, dict[str, float]], None]


class Progress(TrainerCallback):
    """Every `every` steps and at the end, gives `report` the mean loss since the last time, the learning rate and the gradient norm.

    The Trainer logs every step to it, the loss averaged over the workers, so at a loss that is no finite number all workers stop together,
    before a checkpoint of that step is written. The norm is the one before clipping.
    """

    def __init__(self, every: int, report: Log | None) -> None:
        self.every = every
        self.report = report

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Mapping[str, float] | None = None, **_: Any
    ) -> None:
        """Check one step; at the end of a window, report it."""
        if logs is None or "loss" not in logs:
            return
        step = state.global_step
        for value in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(value, 0.0)):
                raise InputError(
                    f"training broke at step {step} of {state.max_steps}: {value} is {logs[value]} with learning_rate "
                    f"{args.learning_rate:g} ({logs['learning_rate']:.3g} at this step); lower it, or look for broken examples in the task"
                )
        if self.report and state.is_world_process_zero and (step % self.every == 0 or step == state.max_steps):
            window = {"train/loss": recent_loss(state, self.every)}
            self.report(step, window | {f"train/{name}": float(logs[name]) for name in ("learning_rate", "grad_norm") if name in logs})
        del state.log_history[: -self.every]


class Checkpointing(TrainerCallback):
    """Asks for a checkpoint every `every` steps (not after the last, which the output holds), seals it and drops old ones."""

    def __init__(self, every: int, work: Path, stage: Mapping[str, Any]) -> None:
        self.every = every
        self.work = work
        self.stage = stage

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        """Decide whether this step is kept."""
        control.should_save = state.global_step % self.every == 0 and state.global_step < state.max_steps
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Once every worker has written its part, the first one writes the manifest."""
        if args.world_size > 1:
            dist.barrier()
        if state.is_world_process_zero:
            seal(self.work / f"checkpoint-{state.global_step}", self.stage)
            keep_newest(self.work)


def recent_loss(state: TrainerState, every: int) -> float:
    """The mean loss over the steps since the last multiple of `every`, the newest step included."""
    since = (state.global_step - 1) // every * every
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry and entry["step"] > since]
    return math.fsum(losses) / len(losses)
