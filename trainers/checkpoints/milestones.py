"""Milestones: the model as it stands after certain optimizer steps, each written once as a plain checkpoint beside the stage's output.

A milestone is what the stage would have written had it ended there. Where the strategy does nothing at the end, it is written from the
model that learns, without a copy of it. Otherwise (LoRA folds its adapters) a second model is loaded from the start on the first worker,
given the trained weights and finished, as a stage would be that goes on from a checkpoint of that step: 4 bytes of main memory per weight
while it is written. The model that learns and all random numbers stay as they are.

That a milestone is whole is written down in the stage's work directory (`milestone-N.json`: which stage it belongs to, size and SHA-256 of
every file). One that is lost or damaged is made again: the stage then goes on from a checkpoint before it.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from foundation.errors import ConfigError
from models.experts import routed_mlps
from models.load import load_model
from trainers.checkpoints.output import write_output
from trainers.checkpoints.resume import is_sharded, is_whole, put_trained, tell_saved, trained_state, write_manifest
from trainers.strategy import Adaptation, Context, Strategy
from trainers.workers import first_decides


def milestone_directory(output: Path, step: int) -> Path:
    """Where the milestone of a step lies, beside the stage's output."""
    return output.with_name(f"{output.name}-step-{step}")


def check_milestones(milestones: Sequence[int], steps: int) -> None:
    """ConfigError where a milestone would never come."""
    if beyond := sorted(step for step in milestones if step > steps):
        raise ConfigError(
            f"training: milestones name step {', '.join(map(str, beyond))}, but the stage ends after step {steps}; "
            "leave them out, or train longer (max_steps, epochs)"
        )


def missing_milestones(milestones: Sequence[int], output: Path, work: Path, stage: Mapping[str, Any]) -> tuple[int, ...]:
    """The milestones that are not there whole, as this stage wrote them; sorted."""
    return tuple(sorted(step for step in milestones if not _is_there(step, output, work, stage)))


@dataclass(frozen=True)
class Written:
    """A checkpoint that was published: how many weights it has, and the SHA-256 of each file by its name."""

    weights: int
    files: dict[str, str]


@dataclass(frozen=True)
class StageWriter:
    """Writes the checkpoints that leave a stage: `milestones` and, after the last step, `output`."""

    context: Context
    strategy: Strategy
    adaptation: Adaptation
    processor: Any
    output: Path
    work: Path
    stage: Mapping[str, Any]
    milestones: tuple[int, ...]

    def write(self, model: PreTrainedModel, step: int) -> Written:
        """Publish `model` as it stands after `step`. Every worker calls this, the first one writes.

        Before the last step `model` stays as it is; at the last one the strategy finishes it in place.
        """
        finish, extras, last = self.adaptation.finish, self.adaptation.extras, step == self.context.steps
        shared = any(is_sharded(parameter) for parameter in model.parameters())
        if finish and last and not shared:
            done = finish(model)
            return first_decides(lambda: self._publish(done, extras, None, step))
        state = trained_state(model)
        if finish or (shared and routed_mlps(model)):
            return first_decides(lambda: self._publish_copy(state, step))
        return first_decides(lambda: self._publish(model, extras, state, step))

    def _publish_copy(self, state: Mapping[str, torch.Tensor], step: int) -> Written:
        """Load the start once more, give it the trained weights, finish and publish it."""
        with random_numbers_kept():
            model = load_model(self.context.start, torch.float32)
            adaptation = self.strategy.start(model, self.context)
            model = adaptation.model or model
            put_trained(model, state, self.work)
            return self._publish(adaptation.finish(model) if adaptation.finish else model, adaptation.extras, None, step)

    def _publish(
        self,
        model: PreTrainedModel,
        extras: Callable[[Path], None] | None,
        state: Mapping[str, torch.Tensor] | None,
        step: int,
    ) -> Written:
        files: dict[str, str] = {}
        if step in self.milestones:
            place = milestone_directory(self.output, step)
            files = write_output(model, self.processor, self.context.start, place, extras, state)
            self.work.mkdir(parents=True, exist_ok=True)
            write_manifest(milestone_manifest(self.work, step), place, self.stage, files)
            tell_saved(place)
        if step == self.context.steps:
            files = write_output(model, self.processor, self.context.start, self.output, extras, state)
        return Written(sum(parameter.numel() for parameter in model.parameters()), files)


class Milestones(TrainerCallback):
    """Hands the model over after each of `steps`, once everything else that a step brings has been done. The last of the callbacks."""

    def __init__(self, steps: Sequence[int], write: Callable[[PreTrainedModel, int], Written]) -> None:
        self.steps = frozenset(steps)
        self.write = write

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: PreTrainedModel | None = None, **_: Any
    ) -> None:
        """Write this step's milestone; that of the last step is written with the output."""
        if state.global_step in self.steps and state.global_step < state.max_steps and model is not None:
            self.write(model, state.global_step)


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Whatever is drawn within, all random numbers go on afterwards as if nothing had been."""
    before = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


def milestone_manifest(work: Path, step: int) -> Path:
    """What says in a stage's work directory that a milestone is whole."""
    return work / f"milestone-{step}.json"


def _is_there(step: int, output: Path, work: Path, stage: Mapping[str, Any]) -> bool:
    manifest, place = milestone_manifest(work, step), milestone_directory(output, step)
    if not is_whole(place, manifest):
        return False
    found: Any = json.loads(manifest.read_text())["stage"]
    return bool(found == json.loads(json.dumps(dict(stage))))
