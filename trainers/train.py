"""One stage of learning, start directory to checkpoint directory.

Call `train_stage` on every worker with the same arguments: inside a Ray Train worker function, under torchrun, or alone in a notebook.
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
from transformers.utils import CHAT_TEMPLATE_DIR

from foundation.files import file_sha256, manifest_digest
from models.experts import expert_files, refuse_trained_originals
from models.load import load_model, load_processor
from tasks.joined import Joined
from tasks.task import Example, Split, Task
from trainers.callbacks import Checkpointing, Log, Progress, RandomNumbers, recent_loss
from trainers.checkpoints.disk import room_for
from trainers.checkpoints.milestones import Milestones, StageWriter, check_milestones, missing_milestones
from trainers.checkpoints.output import check_names, check_start, weight_files
from trainers.checkpoints.resume import checkpoints, newest_whole, remove_half_written, room_needed, step_of
from trainers.data.collate import AnswerCollator
from trainers.data.lengths import measure
from trainers.data.packing import refuse_unpackable
from trainers.data.rehearsal import order_of, own_samples, planned, rehearsed
from trainers.loop import StageTrainer, training_arguments
from trainers.spec import Batches, TrainSpec, check_workers, plan_batches
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategy import Context, Strategy
from trainers.workers import first_decides, reproducible, world_size

OTHER_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx"}
"""How files of weights end. Those that a stage starts from are told by `weight_files`; any others it does not read."""


@dataclass(frozen=True)
class StageResult:
    """What a stage did.

    `samples` counts all examples shown, those rehearsed too; `epochs` is how often the stage's own were. `loss` is the mean over the last
    window of `log_steps`; the speed is that of the steps run since the last resume. `files` are the output's files with their SHA-256,
    taken while they were written.
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
    files: dict[str, str]


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

    @property
    def saves(self) -> bool:
        """Whether there is a checkpoint to write before the stage ends."""
        return self.spec.save_steps < self.batches.steps


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
    batches = stage.batches
    with reproducible(spec.threads):
        trainer, writer, resumed_from = prepare_trainer(stage, on_log)
        looped = time.perf_counter()
        with room_for(
            room_needed(trainer.model) if stage.saves else 0, work, "a checkpoint of the stage", lambda: remove_half_written(work)
        ):
            trainer.train(resume_from_checkpoint=str(resumed_from) if resumed_from else None)
        speed = (batches.steps - step_of(resumed_from)) * spec.batch_size / (time.perf_counter() - looped)
        written = writer.write(trainer.model, batches.steps)
    if on_log and trainer.is_world_process_zero():
        on_log(batches.steps, {"train/samples_per_second": speed})
    samples = batches.steps * spec.batch_size
    return StageResult(
        steps=batches.steps,
        samples=samples,
        epochs=own_samples(trainer.order, len(stage.current)) / len(stage.current),
        loss=recent_loss(trainer.state, spec.log_steps),
        trained_parameters=dict(trainer.adaptation.trained),
        total_parameters=written.weights,
        workers=batches.workers,
        seconds=time.perf_counter() - began,
        samples_per_second=speed,
        resumed_from_step=step_of(resumed_from),
        files=written.files,
    )


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


def prepare_trainer(stage: Stage, on_log: Log | None) -> tuple[StageTrainer, StageWriter, Path | None]:
    """Everything up to the first step, and the checkpoint to go on from, the same on all workers."""
    spec, work = stage.spec, stage.work
    args = training_arguments(spec, stage.batches, work)
    described, milestones, resumed_from = first_decides(lambda: look_for_checkpoints(stage))
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
    return trainer, writer, resumed_from


def look_for_checkpoints(stage: Stage) -> tuple[dict[str, Any], tuple[int, ...], Path | None]:
    """What the stage is, the milestones still to write, and the checkpoint to go on from: the newest before the first of those."""
    milestones, work = stage.spec.milestones, stage.work
    if not (stage.saves or milestones or checkpoints(work)):
        return {}, (), None
    described = describe_stage(stage)
    missing = missing_milestones(milestones, stage.output, work, described)
    return described, missing, newest_whole(work, described, before=min(missing, default=None))


def describe_stage(stage: Stage) -> dict[str, Any]:
    """What decides the stage's bytes, for its checkpoints to carry; the number of workers aside, so that a stage may go on with fewer.

    Milestones are looked at, not learned from, so they may change on the way. Reads the whole start and the Fisher files.
    """
    start = stage.start
    files = sorted({*weight_files(start), *expert_files(start), *companion_files(start)})
    digest = manifest_digest({path.relative_to(start).as_posix(): file_sha256(path) for path in files})
    return {
        "start": digest,
        "task": f"{stage.task!r} version {stage.task.version}",
        "strategy": repr(stage.strategy),
        "fishers": [file_sha256(path) for path in stage.fishers],
        "earlier": [f"{task!r} version {task.version}" for task in stage.earlier],
        **{name: value for name, value in stage.spec.identity.items() if name != "milestones"},
    }


def companion_files(start: Path) -> list[Path]:
    """The files beside a start's weights: config, tokenizer, processor, chat templates and all else but hidden files and other weights."""
    beside = [*start.iterdir(), *(start / CHAT_TEMPLATE_DIR).glob("*.jinja")]
    return [path for path in beside if path.is_file() and not path.name.startswith(".") and path.suffix not in OTHER_WEIGHTS]
