"""What the loop does besides learning: say how it goes, stop at a loss that is no number, and make checkpoints count.

The losses of the open window lie in the Trainer's state, which a checkpoint carries, so a resumed stage logs the same values at the same
steps as an undisturbed one.
"""

import math
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from foundation.errors import InputError
from trainers.checkpoints.disk import check_room
from trainers.checkpoints.resume import keep_newest, room_needed, seal
from trainers.workers import first_decides

OVERFLOWS = 20
"""Optimizer steps in a row that float16 may skip while its loss scale comes down; it halves each time, and starts at 2^16."""

Log = Callable[[int, dict[str, float]], None]


class Progress(TrainerCallback):
    """Every `every` steps and at the end, gives `report` the mean loss since the last time, of its parts (`loss_...`) too, and the step's
    own penalty, learning rate and gradient norm.

    The Trainer logs every step to it, the loss averaged over the workers, so at a loss that is no finite number all workers stop together,
    before a checkpoint of that step is written. The norm is the one before clipping. Where it is no finite number, so do they, except with
    float16, which skips such a step: there at OVERFLOWS in a row, or when no step of the stage has counted.
    """

    def __init__(self, every: int, report: Log | None) -> None:
        self.every = every
        self.report = report
        self.overflows = 0

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Mapping[str, float] | None = None, **_: Any
    ) -> None:
        """Check one step; at the end of a window, report it."""
        if logs is None or "loss" not in logs:
            return
        step = state.global_step
        broken = [value for value in ("loss", "penalty", "grad_norm") if not math.isfinite(logs.get(value, 0.0))]
        self.overflows = self.overflows + 1 if broken == ["grad_norm"] else 0
        if broken and not (args.fp16 and 0 < self.overflows < min(OVERFLOWS, state.max_steps)):
            raise InputError(
                f"training broke at step {step} of {state.max_steps}: {broken[0]} is {logs[broken[0]]} with learning_rate "
                f"{args.learning_rate:g} ({logs['learning_rate']:.3g} at this step); lower it, or look for broken examples in the task"
                + (", or set precision: bfloat16" if args.fp16 else "")
            )
        if self.report and state.is_world_process_zero and (step % self.every == 0 or step == state.max_steps):
            losses = [name for name in logs if name == "loss" or name.startswith("loss_")]
            window = {f"train/{name}": recent_loss(state, self.every, name) for name in losses}
            known = [name for name in ("penalty", "learning_rate", "grad_norm") if math.isfinite(logs.get(name, math.nan))]
            self.report(step, window | {f"train/{name}": float(logs[name]) for name in known})
        del state.log_history[: -self.every]


class Checkpointing(TrainerCallback):
    """Asks for a checkpoint every `every` steps (not after the last, which the output holds), seals it and drops old ones."""

    def __init__(self, every: int, work: Path, stage: Mapping[str, Any]) -> None:
        self.every = every
        self.work = work
        self.stage = stage

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> TrainerControl:
        """Decide whether this step is kept; ResourceError where there is no room for it."""
        control.should_save = state.global_step % self.every == 0 and state.global_step < state.max_steps
        if control.should_save:
            first_decides(lambda: check_room(room_needed(model), self.work, f"the checkpoint of step {state.global_step}"))
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Once every worker has written its part, the first one writes the manifest."""
        if args.world_size > 1:
            dist.barrier()
        if state.is_world_process_zero:
            seal(self.work / f"checkpoint-{state.global_step}", self.stage)
            keep_newest(self.work)


class RandomNumbers(TrainerCallback):
    """Random numbers for a worker that the checkpoint has none of, because there were fewer or more workers when it was written.

    The Trainer would then go on with those of the stage's first step. They are drawn from (seed, step, worker) instead: the stage goes on
    the same way each time, though not as it would have with the workers it had.
    """

    def __init__(self, resumed_from: Path | None, seed: int) -> None:
        self.resumed_from = resumed_from
        self.seed = seed

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Once, at the first step after a resume: the Trainer has read by now what is there."""
        name = "rng_state.pth" if args.world_size == 1 else f"rng_state_{args.process_index}.pth"
        if self.resumed_from and not (self.resumed_from / name).exists():
            address = sha256(f"resumed/{self.seed}/{state.global_step}/{args.process_index}".encode()).digest()
            set_seed(int.from_bytes(address[:4]))
        self.resumed_from = None


def recent_loss(state: TrainerState, every: int, name: str = "loss") -> float:
    """The mean loss, or part of it, over the steps since the last multiple of `every`, the newest step included."""
    since = (state.global_step - 1) // every * every
    losses = [entry[name] for entry in state.log_history if name in entry and entry["step"] > since]
    return math.fsum(losses) / len(losses)
