"""A fine-tuning stage on Ray Train: `TorchTrainer` starts the workers, each runs `trainers.train.train_stage` (transformers' Trainer).

Resuming never rests on Ray's own snapshot: every attempt is a fresh Ray run, and each worker goes on from the newest checkpoint in the
step's scratch directory that verifies. A worker that dies is replaced up to `max_failures` times.
"""

import math
import os
import shutil
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foundation.errors import MergelineError, ResourceError
from pipeline.step import Resources, Work
from trainers.strategy import Learning

BOTH = "cpu:gloo,cuda:nccl"
"""The process group of workers with GPUs that also put together what lies in main memory; NCCL alone cannot."""


def fit(work: Work, start: Path, learning: Learning, resources: Resources) -> dict[str, Any]:
    """Train on Ray until the checkpoint is in `work.directory / "checkpoint"`; returns the stage's figures."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    per_worker = {"CPU": min(resources.cpus, max(1, ray.cluster_resources().get("CPU", 1) // resources.workers))}
    if resources.gpus:
        per_worker["GPU"] = resources.gpus
    attempts = work.scratch / "ray"
    shutil.rmtree(attempts, ignore_errors=True)
    settings = {
        "start": start,
        "learning": learning,
        "output": work.directory / "checkpoint",
        "work": work.scratch / "checkpoints",
        "log": work.log_function(),
        "progress": work.progress,
    }
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config=settings,
        torch_config=TorchConfig(backend=BOTH if resources.gpus and learning.spec.cpu_offload else None),
        scaling_config=ScalingConfig(num_workers=resources.workers, use_gpu=resources.gpus > 0, resources_per_worker=per_worker),
        run_config=RunConfig(
            name=uuid.uuid4().hex[:12],
            storage_path=str(attempts),
            failure_config=FailureConfig(max_failures=resources.max_failures),
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _told(error) from error
    figures = dict(result.return_value)
    if "error" in figures:
        raise figures["error"]
    return figures


def _train_on_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """What each Ray Train worker runs."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import ray.train

    from trainers.train import train_stage

    learning: Learning = settings["learning"]
    spec = learning.spec
    log, progress = settings["log"], settings["progress"]
    total = spec.max_steps or math.ceil(spec.epochs * ((spec.samples or 0) // spec.batch_size))

    def on_log(step: int, values: dict[str, float]) -> None:
        log(step, values)
        progress(step, total, f"loss {values['train/loss']:.3f}" if "train/loss" in values else "")

    try:
        result = train_stage(
            settings["start"],
            learning.task,
            spec,
            settings["output"],
            settings["work"],
            on_log,
            learning.strategy,
            learning.fishers,
            learning.earlier,
        )
        return asdict(result)
    except MergelineError as error:
        if ray.train.get_context().get_world_size() > 1:
            raise  # the others must not wait for this worker
        return {"error": error}  # not a failure of the worker: trying again would end the same


def _told(error: Exception) -> Exception:
    """The worker's own error: a message for the user, or a bug with its traceback; else that the workers died, and their last words."""
    failures = list(getattr(error, "worker_failures", {}).values())
    for failure in failures:
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, MergelineError):
                return cause
            raised = getattr(cause, "_base_exc", None)  # how Ray Train carries what the training function raised
            if isinstance(raised, Exception) and not isinstance(raised, MergelineError | MemoryError):
                raised.add_note(str(failure))
                return raised
            cause = raised or getattr(cause, "cause", None) or cause.__cause__
    last = str(failures[0]).strip().splitlines()[-1] if failures else str(error)
    return ResourceError(f"training workers failed more often than max_failures allows; the last one said: {last}")
