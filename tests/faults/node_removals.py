"""A Ray cluster of several nodes on this machine, one of which vanishes: in the middle of a merge, and in the middle of training.

Run as a program, with a TMPDIR of its own: Ray leaves the address of such a cluster in the temporary directory, where every other Ray of
this machine would find it. Prints one line of JSON.

    python node_removals.py DIRECTORY           # a merge
    python node_removals.py DIRECTORY BASE      # a merge, then training from BASE, a small digits model
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
import waiting_task
from ray import cloudpickle
from ray.cluster_utils import Cluster
from safetensors.torch import save_file

from mergers import InProcess, ItemOutcome, Plan, Source, WeightedAverage, WorkItem, execute, plan_merge, read_checkpoint
from pipeline.graph.actors import IN_FLIGHT, RayActors
from pipeline.graph.perform import perform
from pipeline.steps import FineTune, Pretrained
from pipeline.store import Store
from tasks.registry import get_task
from trainers.spec import TrainSpec
from trainers.train import train_stage

cloudpickle.register_pickle_by_value(waiting_task)  # the workers do not have the modules of tests
NODES = 3
SPEC = TrainSpec(parts=("language_model.mlp", "projector"), learning_rate=1e-3, samples=64, max_steps=8, batch_size=8, save_steps=2)
LOST_IN_STEP = 6
NOTICED_SECONDS = 60
LONGEST_SECONDS = 240


def noted(function: Callable[[WorkItem], ItemOutcome], place: str) -> Callable[[WorkItem], ItemOutcome]:
    """`function`, slowed down; every beginning is a line with the process in `place`. While a node goes, nothing gets on."""

    def called(item: WorkItem) -> ItemOutcome:
        descriptor = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        os.close(descriptor)
        time.sleep(0.2)
        while os.path.exists(f"{place}.going") and not os.path.exists(f"{place}.gone"):
            time.sleep(0.05)
        return function(item)

    return called


@dataclass
class Losing:
    """Ray actors on all nodes; the node of the first of them vanishes when a third of the items has begun."""

    cluster: Cluster
    place: Path
    actors: RayActors = field(default_factory=lambda: RayActors(NODES))
    begun_then: int = 0  # items, when the node had gone

    def map(self, function: Callable[[WorkItem], ItemOutcome], items: Sequence[WorkItem]) -> Iterator[ItemOutcome]:
        threading.Thread(target=self.lose, args=(len(items) // 3,), daemon=True).start()
        return self.actors.map(noted(function, str(self.place)), items)

    def lose(self, after: int) -> None:
        while len(self.begun()) < after or len(set(self.begun())) < NODES:
            time.sleep(0.02)
        self.place.with_name("begun.going").touch()
        remove(self.cluster, self.begun()[0])
        self.begun_then = len(self.begun())
        self.place.with_name("begun.gone").touch()

    def begun(self) -> list[int]:
        return [int(line) for line in self.place.read_text().split()] if self.place.exists() else []


def remove(cluster: Cluster, pid: int) -> None:
    """Take away, at once and without a word, the node on which this process runs. RuntimeError if any of it is left."""
    process = psutil.Process(pid)
    raylets = {parent.pid for parent in process.parents()}
    node = next(node for node in cluster.worker_nodes if node.all_processes["raylet"][0].process.pid in raylets)
    cluster.remove_node(node, allow_graceful=False)
    psutil.wait_procs([process], timeout=30)
    if process.is_running() or node in cluster.worker_nodes:
        raise RuntimeError(f"the node of process {pid} is still there")


def nodes_left(expected: int) -> int:
    """How many nodes Ray has, but for its head, once it has noticed; it asks each of them now and then whether it is there."""
    latest = time.monotonic() + NOTICED_SECONDS
    while (found := sum(node["Alive"] for node in ray.nodes()) - 1) != expected and time.monotonic() < latest:
        time.sleep(0.2)
    return found


def plan(directory: Path, output: str) -> Plan:
    """A merge of two checkpoints in about forty items."""
    sources = []
    for seed in range(2):
        place = directory / f"source-{seed}"
        if not place.exists():
            place.mkdir()
            generator = torch.Generator().manual_seed(seed)
            tensors = {f"layer.{n}.weight": torch.randn(256, 64, generator=generator) for n in range(20)}
            save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
            (place / "config.json").write_text('{"model_type": "llama"}')
        sources.append(Source(f"s{seed}", read_checkpoint(place)))
    return plan_merge(WeightedAverage((0.25, 0.75)), sources, directory / output, item_bytes=64 << 10)


def merge(cluster: Cluster, directory: Path) -> dict[str, Any]:
    """What became of a merge whose node vanished."""
    expected = execute(plan(directory, "whole"), InProcess()).files
    losing, started = Losing(cluster, directory / "begun"), time.monotonic()
    files = execute(plan(directory, "lost"), losing).files
    return {
        "same bytes": files == expected,
        "items": len(plan(directory, "other").items),
        "begun when the node had gone": losing.begun_then,
        "begun": len(losing.begun()),
        "in flight": IN_FLIGHT,
        "nodes left": nodes_left(NODES - 1),
        "seconds": round(time.monotonic() - started, 1),
    }


def training(cluster: Cluster, base: Path, directory: Path) -> dict[str, Any]:
    """What became of a stage whose node vanished between step 4, which it had saved, and step 6."""
    task = waiting_task.WaitingTask(str(directory), deaths=1, after=SPEC.batch_size * (LOST_IN_STEP - 1) + 1)
    start = Pretrained(source="sha256:untrained", place=str(base))
    stage = FineTune(start, task, SPEC)  # type: ignore[arg-type]
    store, death = Store(directory / "store"), directory / "death-0"
    stored_then: list[bool] = []

    def lose() -> None:
        while not (death.exists() and death.read_text().endswith("\n")) or not list(store.root.rglob("checkpoint-4/manifest.json")):
            time.sleep(0.05)
        remove(cluster, int(death.read_text()))
        stored_then.append(store.record(stage) is not None)

    threading.Thread(target=lose, daemon=True).start()
    for step in (start, stage):
        perform(step, store)
    record = store.record(stage)
    assert record is not None
    train_stage(base, get_task("parity"), SPEC, directory / "plain", directory / "plain-work")
    weights = [place / "model.safetensors" for place in (record.checkpoint or Path(), directory / "plain")]
    return {
        "same bytes": weights[0].read_bytes() == weights[1].read_bytes(),
        "resumed from": record.metrics["resumed_from_step"],
        "was in step": LOST_IN_STEP,
        "save steps": SPEC.save_steps,
        "stored when the node had gone": stored_then,
        "nodes left": nodes_left(NODES - 2),
        "seconds": round(record.content["seconds"], 1),
    }


def main(directory: Path, base: Path | None = None) -> None:
    """One after the other on one cluster; a node that vanished is not replaced."""
    torch.set_num_threads(1)
    limit = threading.Timer(LONGEST_SECONDS, os._exit, (124,))
    limit.daemon = True  # where it fails, it ends at once
    limit.start()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(NODES):
        cluster.add_node(num_cpus=1)
    environment = {"PYTHONPATH": os.environ["PYTHONPATH"], "OMP_NUM_THREADS": "1"}
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error", runtime_env={"env_vars": environment})
    try:
        told = {"merge": merge(cluster, directory)} | ({"training": training(cluster, base, directory)} if base else {})
        print("\n" + json.dumps(told), flush=True)
    finally:
        ray.shutdown()
        cluster.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
