"""What the stages of all kinds share around their loop: which checkpoint to go on from, the run itself, and what is told of it.

`trainers/train.py` and `trainers/modality/stage.py` make a trainer each in their own way and hand it to `run_stage`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import CHAT_TEMPLATE_DIR

from foundation.files import file_sha256, manifest_digest
from models.experts import expert_files
from trainers.base import BaseTrainer
from trainers.callbacks import Log, recent_loss
from trainers.checkpoints.disk import room_for
from trainers.checkpoints.milestones import StageWriter, missing_milestones
from trainers.checkpoints.output import weight_files
from trainers.checkpoints.resume import checkpoints, newest_whole, remove_half_written, room_needed, step_of
from trainers.spec import Batches, TrainSpec

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
class Prepared:
    """A stage before its first step: the loop, who writes what leaves it, and the checkpoint to go on from, the same on all workers."""

    trainer: BaseTrainer
    writer: StageWriter
    resumed_from: Path | None


def run_stage(prepared: Prepared, batches: Batches, epochs: float, began: float, on_log: Log | None) -> StageResult:
    """Run the loop to its end and write the output; `began` is when the stage did, by `time.perf_counter`."""
    trainer, writer, resumed_from = prepared.trainer, prepared.writer, prepared.resumed_from
    spec, work = trainer.spec, writer.work
    looped = time.perf_counter()
    room = room_needed(trainer.plain) if saves(spec, batches) else 0
    with room_for(room, work, "a checkpoint of the stage", lambda: remove_half_written(work)):
        trainer.train(resume_from_checkpoint=str(resumed_from) if resumed_from else None)
    speed = (batches.steps - step_of(resumed_from)) * spec.batch_size / (time.perf_counter() - looped)
    written = writer.write(trainer.plain, batches.steps)
    if on_log and trainer.is_world_process_zero():
        on_log(batches.steps, {"train/samples_per_second": speed})
    return StageResult(
        steps=batches.steps,
        samples=batches.steps * spec.batch_size,
        epochs=epochs,
        loss=recent_loss(trainer.state, spec.log_steps),
        trained_parameters=dict(writer.adaptation.trained),
        total_parameters=written.weights,
        workers=batches.workers,
        seconds=time.perf_counter() - began,
        samples_per_second=speed,
        resumed_from_step=step_of(resumed_from),
        files=written.files,
    )


def saves(spec: TrainSpec, batches: Batches) -> bool:
    """Whether there is a checkpoint to write before the stage ends."""
    return spec.save_steps < batches.steps


def find_checkpoints(
    spec: TrainSpec, batches: Batches, output: Path, work: Path, describe: Callable[[], dict[str, Any]]
) -> tuple[dict[str, Any], tuple[int, ...], Path | None]:
    """What the stage is, the milestones still to write, and the checkpoint to go on from: the newest before the first of those.

    `describe` is asked only where something is, or will be, there that has to belong to this stage.
    """
    milestones = spec.milestones
    if not (saves(spec, batches) or milestones or checkpoints(work)):
        return {}, (), None
    described = describe()
    missing = missing_milestones(milestones, output, work, described)
    return described, missing, newest_whole(work, described, before=min(missing, default=None))


def identity_of(spec: TrainSpec) -> dict[str, Any]:
    """What of `spec` a checkpoint has to agree with. Milestones are looked at, not learned from, so they may change on the way."""
    return {name: value for name, value in spec.identity.items() if name != "milestones"}


def start_digest(start: Path) -> str:
    """The digest of all that a stage starts from. Reads the whole of it."""
    files = sorted({*weight_files(start), *expert_files(start), *companion_files(start)})
    return manifest_digest({path.relative_to(start).as_posix(): file_sha256(path) for path in files})


def companion_files(start: Path) -> list[Path]:
    """The files beside a start's weights: config, tokenizer, processor, chat templates and all else but hidden files and other weights."""
    beside = [*start.iterdir(), *(start / CHAT_TEMPLATE_DIR).glob("*.jinja")]
    return [path for path in beside if path.is_file() and not path.name.startswith(".") and path.suffix not in OTHER_WEIGHTS]
