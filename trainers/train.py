"""One stage of learning, start directory to checkpoint directory.

Call `train_stage` on every worker with the same arguments: inside a Ray Train worker function, under torchrun, or alone in a notebook.
Killed at any time and called again, it goes on from its last checkpoint and writes the same bytes. With several machines, `start`, `work`
and `output` lie on storage they share.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from foundation.files import file_sha256, manifest_digest
from models.load import load_model, load_processor
from tasks.task import Example, Split, Task
from trainers.callbacks import Checkpointing, Log, Progress, recent_loss
from trainers.collate import AnswerCollator
from trainers.loop import StageTrainer, training_arguments
from trainers.order import StageOrder
from trainers.output import check_start, weight_files, write_output
from trainers.resume import checkpoints, newest_whole, step_of
from trainers.spec import Batches, TrainSpec, check_workers, plan_batches
from trainers.strategy import FineTuning, Strategy
from trainers.workers import first_decides, reproducible, world_size


@dataclass(frozen=True)
class StageResult:
    """What a stage did.

    `loss` is the mean over the last window of `log_steps`; the speed is that of the steps run since the last resume.
    """

    steps: int
    samples: int
    epochs: float
    loss: float
    trained_parameters: dict[str, int]
    total_parameters: int
    workers: int
    seconds: float
    samples_per_second: float
    resumed_from_step: int


def train_stage(
    start: Path,
    task: Task,
    spec: TrainSpec,
    output: Path,
    work: Path,
    on_log: Log | None = None,
    strategy: Strategy | None = None,
) -> StageResult:
    """Train the model in `start` on the task's training split and write it to `output`, under the same tensor names and dtypes.

    `work` holds the checkpoints of this stage alone and may be removed once `output` is there. `on_log(step, values)` is called on the
    first worker; after a resume steps come again, with the same values. `strategy` is plain fine-tuning of `spec.parts` unless given.

    Raises ConfigError for settings that cannot be honoured, InputError for a start that does not fit or a loss that is no number.
    """
    began = time.perf_counter()
    strategy = strategy or FineTuning(spec.parts)
    check_workers(spec, world_size())
    check_start(start)
    examples = task.examples(Split.TRAIN, spec.samples)
    batches = plan_batches(spec, world_size(), len(examples))

    def described() -> dict[str, Any]:  # reads the whole start, so only the first worker does it
        return describe_stage(start, task, spec, strategy) if spec.save_steps < batches.steps or checkpoints(work) else {}

    stage = first_decides(described)
    with reproducible(spec.threads):
        trainer, resumed_from = prepare_trainer(start, examples, spec, batches, strategy, work, stage, on_log)
        looped = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(resumed_from) if resumed_from else None)
        speed = (batches.steps - step_of(resumed_from)) * spec.batch_size / (time.perf_counter() - looped)
        if trainer.adaptation.finish:
            trainer.adaptation.finish(trainer.model)
    total = sum(parameter.numel() for parameter in trainer.model.parameters())
    first_decides(lambda: write_output(trainer.model, trainer.data_collator.processor, start, output))
    if on_log and trainer.is_world_process_zero():
        on_log(batches.steps, {"train/samples_per_second": speed})
    samples = batches.steps * spec.batch_size
    return StageResult(
        steps=batches.steps,
        samples=samples,
        epochs=samples / len(examples),
        loss=recent_loss(trainer.state, spec.log_steps),
        trained_parameters=dict(trainer.adaptation.trained),
        total_parameters=total,
        workers=batches.workers,
        seconds=time.perf_counter() - began,
        samples_per_second=speed,
        resumed_from_step=step_of(resumed_from),
    )


def prepare_trainer(
    start: Path,
    examples: Sequence[Example],
    spec: TrainSpec,
    batches: Batches,
    strategy: Strategy,
    work: Path,
    stage: Mapping[str, Any],
    on_log: Log | None,
) -> tuple[StageTrainer, Path | None]:
    """Everything up to the first step, and the checkpoint to go on from, the same on all workers."""
    args = training_arguments(spec, batches, work)
    resumed_from = first_decides(lambda: newest_whole(work, stage))
    set_seed(spec.seed)
    model = load_model(start, torch.float32)
    adaptation = strategy.start(model)
    trainer = StageTrainer(
        model,
        args,
        StageOrder(len(examples), spec.batch_size, batches, spec.seed),
        AnswerCollator(examples, load_processor(start)),
        adaptation,
        [Progress(spec.log_steps, on_log), Checkpointing(spec.save_steps, work, stage), *adaptation.callbacks],
    )
    return trainer, resumed_from


def describe_stage(start: Path, task: Task, spec: TrainSpec, strategy: Strategy) -> dict[str, Any]:
    """What decides the stage's bytes, for its checkpoints to carry; the number of workers aside, so that a stage may go on with fewer."""
    digest = manifest_digest({path.name: file_sha256(path) for path in [start / "config.json", *weight_files(start)]})
    return {"start": digest, "task": f"{task!r} version {task.version}", "strategy": repr(strategy), **spec.identity}
