"""One stage of learning, start directory to checkpoint directory.

Call `train_stage` on every worker with the same arguments: in Ray's workers, under torchrun, or alone in a notebook.
Killed at any time and called again, it goes on from its last checkpoint and writes the same bytes. With several machines, `start`, `work`
and `output` lie on storage they share. A stage may go on with another number of workers; its bytes are then no longer those of either.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from foundation.files import file_sha256
from models.experts import refuse_trained_originals
from models.load import load_model, load_processor
from tasks.joined import Joined
from tasks.task import Example, Split, Task
from trainers.callbacks import Checkpointing, Log, Progress, RandomNumbers
from trainers.checkpoints.milestones import Milestones, StageWriter, check_milestones
from trainers.checkpoints.output import check_names, check_start
from trainers.data.collate import AnswerCollator
from trainers.data.lengths import measure
from trainers.data.packing import refuse_unpackable
from trainers.data.rehearsal import order_of, own_samples, planned, rehearsed
from trainers.loop import StageTrainer, training_arguments
from trainers.spec import Batches, TrainSpec, check_workers, plan_batches
from trainers.stage import Prepared, StageResult, companion_files, find_checkpoints, identity_of, run_stage, start_digest
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategy import Context, Strategy
from trainers.workers import first_decides, reproducible, world_size

__all__ = ["Stage", "StageResult", "companion_files", "train_stage"]


@dataclass(frozen=True)
class Stage:
    """What a stage is told, and what follows from it before any weight is read."""

    start: Path
    task: Task
    spec: TrainSpec
    output: Path
    work: Path
    strategy: Strategy
    fishers: tuple[Path, ...]
    earlier: tuple[Task, ...]
    current: Sequence[Example]
    rehearsed: Sequence[Sequence[Example]]
    batches: Batches

    @property
    def context(self) -> Context:
        """What the strategy may look at."""
        return Context(self.start, self.spec, self.batches.steps, self.fishers)


def train_stage(
    start: Path,
    task: Task,
    spec: TrainSpec,
    output: Path,
    work: Path,
    on_log: Log | None = None,
    strategy: Strategy | None = None,
    fishers: Sequence[Path] = (),
    earlier: Sequence[Task] = (),
) -> StageResult:
    """Train the model in `start` on the task's training split and write it to `output`, under the same tensor names and dtypes.

    `work` holds the checkpoints of this stage alone and may be removed once `output` is there; milestones lie beside `output` (see
    `trainers/checkpoints/milestones.py`). `on_log(step, values)` is called on the first worker; after a resume steps come again, with the
    same values. `strategy` is plain fine-tuning of `spec.parts` unless given. `fishers` are the Fisher files of the earlier stages, for a
    strategy that reads them, and `earlier` their tasks, oldest first, for one that rehearses.

    Raises ConfigError for settings that cannot be honoured, InputError for a start that does not fit or a loss that is no number,
    ResourceError where the disk is full.
    """
    began = time.perf_counter()
    stage = check_stage(start, task, spec, output, work, strategy or FineTuning(), tuple(fishers), tuple(earlier))
    with reproducible(spec.threads):
        prepared = prepare_trainer(stage, on_log)
        epochs = own_samples(prepared.trainer.order, len(stage.current)) / len(stage.current)
        return run_stage(prepared, stage.batches, epochs, began, on_log)


def check_stage(
    start: Path,
    task: Task,
    spec: TrainSpec,
    output: Path,
    work: Path,
    strategy: Strategy,
    fishers: tuple[Path, ...],
    earlier: tuple[Task, ...],
) -> Stage:
    """Refuse what can be refused before the model is loaded."""
    check_workers(spec, world_size())
    check_start(start)
    current = task.examples(Split.TRAIN, spec.samples)
    kept = rehearsed(strategy, earlier, spec)
    batches = plan_batches(spec, world_size(), planned(strategy, len(current), kept))
    check_milestones(spec.milestones, batches.steps)
    return Stage(start, task, spec, output, work, strategy, fishers, earlier, current, kept, batches)


def prepare_trainer(stage: Stage, on_log: Log | None) -> Prepared:
    """Everything up to the first step."""
    spec, work = stage.spec, stage.work
    args = training_arguments(spec, stage.batches, work)
    described, milestones, resumed_from = first_decides(
        lambda: find_checkpoints(spec, stage.batches, stage.output, work, lambda: describe_stage(stage))
    )
    set_seed(spec.seed)
    model = load_model(stage.start, torch.float32)
    check_names(model, stage.start)
    if spec.packing:
        refuse_unpackable(model)
    adaptation = stage.strategy.start(model, stage.context)
    refuse_trained_originals(adaptation.model or model)
    processor = load_processor(stage.start)
    writer = StageWriter(stage.context, stage.strategy, adaptation, processor, stage.output, work, described, milestones)
    examples = Joined([stage.current, *stage.rehearsed])
    counts = [len(stage.current), *map(len, stage.rehearsed)]
    trainer = StageTrainer(
        adaptation.model or model,
        args,
        order_of(stage.strategy, spec, stage.batches, counts, measure(examples, processor, spec)),
        AnswerCollator(examples, processor, max_length=spec.max_length, packing=spec.packing),
        adaptation,
        [
            Progress(spec.log_steps, on_log),
            RandomNumbers(resumed_from, spec.seed),
            Checkpointing(spec.save_steps, work, described),
            *adaptation.callbacks,
            Milestones(milestones, writer.write),
        ],
    )
    return Prepared(trainer, writer, resumed_from)


def describe_stage(stage: Stage) -> dict[str, Any]:
    """What decides the stage's bytes, for its checkpoints to carry; the number of workers aside, so that a stage may go on with fewer.

    Reads the whole start and the Fisher files.
    """
    return {
        "start": start_digest(stage.start),
        "task": f"{stage.task!r} version {stage.task.version}",
        "strategy": repr(stage.strategy),
        "fishers": [file_sha256(path) for path in stage.fishers],
        "earlier": [f"{task!r} version {task.version}" for task in stage.earlier],
        **identity_of(stage.spec),
    }
