"""Stages in processes of their own: killed outright, and two workers that share one batch."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forking import Forked, Forking
from free_ports import free_port
from safetensors.torch import load_file

from foundation.files import directory_manifest
from trainers.train import StageResult

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("forked")]

Stage = Callable[..., StageResult]

WORKER = """
import hashlib, json, os, sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
import torch
from tasks.registry import get_task
from trainers.spec import TrainSpec
from trainers.strategies.fine_tuning import FineTuning
from trainers.train import train_stage

@dataclass(frozen=True)
class Hashed(FineTuning):
    # Plain fine-tuning that tells which weights this worker ends with.
    def start(self, model, context):
        return replace(super().start(model, context), finish=self.tell)
    def tell(self, model):
        data = b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters())
        print(json.dumps({"weights": hashlib.sha256(data).hexdigest()}), flush=True)
        return model

start, output, work, fields = sys.argv[1:]
spec = TrainSpec(**{**json.loads(fields), "parts": tuple(json.loads(fields)["parts"])})
log = lambda step, values: print(json.dumps({"step": step, **values}), flush=True)
result = train_stage(Path(start), get_task("parity"), spec, Path(output), Path(work), log, Hashed())
print(json.dumps({"result": asdict(result)}), flush=True)
os._exit(0)  # all is told; the threads of gloo now and then abort a process that ends by itself
"""


@pytest.fixture
def worker(base: Path, spec: Any, tmp_path: Path, forks: Forking) -> Callable[..., Forked]:
    """Starts one worker process of the stage called `name`."""

    def begin(name: str, environment: dict[str, str] | None = None, **changes: Any) -> Forked:
        fields = {**spec.identity, "save_steps": spec.save_steps, "log_steps": spec.log_steps, **changes}
        arguments = [str(base), str(tmp_path / name), str(tmp_path / f"{name}-work"), json.dumps(fields)]
        return forks(WORKER, arguments, {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})})

    return begin


def finished(process: Forked) -> list[dict[str, Any]]:
    """What a worker printed, once it has ended well."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def together(begin: Callable[..., Forked], name: str, workers: int, **changes: Any) -> list[list[dict[str, Any]]]:
    """What each of several workers of one stage printed."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(workers), "LOCAL_WORLD_SIZE": str(workers)}
    ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(workers)]
    processes = [begin(name, environment, **changes) for environment in ranks]
    return [finished(process) for process in processes]


def test_a_killed_stage_ends_with_the_same_bytes(worker: Any, stage: Stage, tmp_path: Path) -> None:
    """Killed at random moments once the first checkpoint is under way, as often as it takes; in between it only ever moves on."""
    chance = random.Random(0)
    long = {"max_steps": 48, "save_steps": 3}
    kills = 0
    while not (tmp_path / "killed").exists() and kills < 3:
        process = worker("killed", **long)
        before = {path.name for path in (tmp_path / "killed-work").glob("checkpoint-*")}
        while process.poll() is None and {path.name for path in (tmp_path / "killed-work").glob("checkpoint-*")} <= before:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills
    last = finished(worker("killed", **long))[-1]["result"]
    stage("whole", **long)
    assert 0 < last["resumed_from_step"] < 48
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "killed")
    assert not list(tmp_path.glob(".*.tmp"))


def test_two_workers_share_one_batch(worker: Any, stage: Stage, tmp_path: Path) -> None:
    """Each batch holds the same examples as with one worker, so losses agree up to the order of float32 sums (measured: below 1e-5)."""
    first, second = together(worker, "two", 2, adam_epsilon=1e-4)
    alone: list[tuple[int, dict[str, float]]] = []
    single = stage("one", on_log=lambda *entry: alone.append(entry), adam_epsilon=1e-4)
    results = [printed[-1]["result"] for printed in (first, second)]
    logged = {entry["step"]: entry["train/loss"] for entry in first if "train/loss" in entry}
    assert logged == pytest.approx({step: values["train/loss"] for step, values in alone if "train/loss" in values}, rel=1e-4)
    assert not [entry for entry in second if "step" in entry]  # only the first worker logs
    assert logged[7] < logged[3]
    assert [(each["loss"], each["samples"], each["workers"]) for each in results] == [(logged[7], single.samples, 2)] * 2
    assert len({entry["weights"] for printed in (first, second) for entry in printed if "weights" in entry}) == 1
    one, two = load_file(tmp_path / "one" / "model.safetensors"), load_file(tmp_path / "two" / "model.safetensors")
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-5
    assert not list(tmp_path.glob(".*.tmp"))


def test_two_workers_go_on_together(worker: Any, tmp_path: Path) -> None:
    """Both lost, both started again: the same bytes, and the same random numbers on each worker."""
    together(worker, "whole", 2)
    together(worker, "parts", 2)
    newest = max((tmp_path / "parts-work").glob("checkpoint-*"))
    assert {path.name for path in newest.glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    (newest / "rng_state_1.pth").unlink()  # the older checkpoint is the newest whole one now
    again = together(worker, "parts", 2)
    assert [printed[-1]["result"]["resumed_from_step"] for printed in again] == [4, 4]
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "parts")
