"""A stage of learning on Ray: one worker as a Ray task, several by Ray Train. Each runs `trainers` on its own (transformers' Trainer).

A lone worker has nobody to meet, so it needs no `TorchTrainer`, whose controller, worker and process group take ten seconds to start; a
task finds a process that has torch loaded already. Either way resuming never rests on a snapshot of Ray's: every attempt goes on from the
newest checkpoint in the step's scratch directory that verifies, and a worker that dies is replaced up to `max_failures` times.
"""

import math
import os
import shutil
import uuid
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foundation.errors import MergelineError, ResourceError
from pipeline.graph.usage import sampling
from pipeline.objects.presence import presence
from pipeline.step import Resources, Work
from trainers.modality.spec import ModalityLearning
from trainers.strategy import Learning

BOTH = "cpu:gloo,cuda:nccl"
"""The process group of workers with GPUs that also put together what lies in main memory; NCCL alone cannot."""


def fit(work: Work, start: Path, learning: Learning | ModalityLearning, resources: Resources) -> dict[str, Any]:
    """Train on Ray until the checkpoint is in `work.directory / "checkpoint"`; returns the stage's figures."""
    settings = {
        "start": start,
        "learning": learning,
        "output": work.directory / "checkpoint",
        "work": work.scratch / "checkpoints",
        "log": work.log_function(),
        "progress": work.progress,
        "sampling": sampling(),
        "files": _stage_files(work),
    }
    figures = (_alone if resources.workers == 1 else _together)(settings, work, resources)
    if "error" in figures:
        raise figures["error"]
    return figures


def _stage_files(work: Work) -> Any:
    """What the first worker brings and puts where nodes share an object store alone; None where they share the store."""
    shared = presence()
    if shared is None:
        return None
    from pipeline.objects.training import StageFiles

    return StageFiles(shared, work.scratch / "checkpoints")


def _alone(settings: dict[str, Any], work: Work, resources: Resources) -> dict[str, Any]:
    """The one worker is a Ray task, started again where it died. Not by Ray, which would do so without end where memory is short."""
    import ray

    options = {**_per_worker(resources, "num_cpus", "num_gpus"), "max_retries": 0, "name": "a stage's worker"}
    task = ray.remote(_train_on_worker).options(**options)
    failures: list[Exception] = []
    while len(failures) <= resources.max_failures:
        try:
            return dict(ray.get(task.remote(settings)))
        except ray.exceptions.TaskCancelledError:
            raise
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, Exception) and not isinstance(error.cause, MemoryError):
                raise error.cause from error
            failures.append(error)
        except ray.exceptions.RayError as error:
            failures.append(error)
    raise _gone(str(failures[-1])) from failures[-1]


def _together(settings: dict[str, Any], work: Work, resources: Resources) -> dict[str, Any]:
    """Several workers that meet in a process group."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    attempts = work.scratch / "ray"
    shutil.rmtree(attempts, ignore_errors=True)
    offloads = resources.gpus and settings["learning"].spec.cpu_offload
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config=settings,
        torch_config=TorchConfig(backend=BOTH if offloads else None),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker=_per_worker(resources, "CPU", "GPU"),
            placement_strategy="STRICT_PACK" if settings["files"] else "PACK",  # they share files, hence a disk
        ),
        run_config=RunConfig(
            name=uuid.uuid4().hex[:12],
            storage_path=str(attempts),
            failure_config=FailureConfig(max_failures=resources.max_failures),
        ),
    )
    try:
        return dict(trainer.fit().return_value)
    except ray.train.TrainingFailedError as error:
        raise _told(error) from error


def _per_worker(resources: Resources, cpus: str, gpus: str) -> dict[str, float]:
    """What one worker asks of Ray, under the names that are wanted: never more processors than there are for it."""
    import ray

    asked = {cpus: min(resources.cpus, max(1, ray.cluster_resources().get("CPU", 1) // resources.workers))}
    return asked | ({gpus: resources.gpus} if resources.gpus else {})


def _train_on_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """What each worker runs."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from trainers.learn import learn
    from trainers.workers import first_decides, world_size

    learning: Learning | ModalityLearning = settings["learning"]
    spec = learning.spec
    log, progress = settings["log"], settings["progress"]
    total = spec.max_steps or math.ceil(spec.epochs * ((spec.samples or 0) // spec.batch_size))

    def on_log(step: int, values: dict[str, float]) -> None:
        log(step, values)
        progress(step, total, f"loss {values['train/loss']:.3f}" if "train/loss" in values else "")

    files, rank = settings["files"], int(os.environ["RANK"]) if world_size() > 1 else 0
    try:
        with settings["sampling"].of(f"worker_{rank}"):
            if files:
                first_decides(files.arrive)
            with files.saving() if files else nullcontext() as on_saved:
                told = asdict(learn(learning, settings["start"], settings["output"], settings["work"], on_log, on_saved))
        return told | ({"there": files.deliver(told["files"])} if files and rank == 0 else {})
    except MergelineError as error:
        if world_size() > 1:
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
    return _gone(str(failures[0] if failures else error))


def _gone(words: str) -> ResourceError:
    """That the workers died, and what is known of it: the last line, or the one that tells of short memory, which advice follows."""
    lines = words.strip().splitlines()
    told = next((line for line in lines if "low on memory" in line), lines[-1])
    return ResourceError(f"training workers failed more often than max_failures allows; the last one said: {told}")
