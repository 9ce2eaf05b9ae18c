"""Sharding among two workers, in processes of their own on gloo: the same numbers as DDP, less memory, and resumes that change no bit.

With penalties and averages too, and where a worker's batch shows no image while the other's does.

The two workers run one stage after another, so that they start only once for all tests of this file.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from forking import Forking
from free_ports import free_port
from mixed_task import Mixed
from safetensors.torch import load_file

from foundation.files import directory_manifest
from trainers.spec import TrainSpec
from trainers.strategies.l2 import L2ToStart
from trainers.train import train_stage

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("forked")]

PROGRAM = """
import json, os, shutil, sys
from pathlib import Path
import torch.distributed as dist
import trainers.train
from mixed_task import Mixed
from foundation.errors import InputError
from tasks.registry import get_task
from trainers.loop import StageTrainer
from trainers.checkpoints.resume import is_sharded
from trainers.spec import TrainSpec
from trainers.strategies.table import STRATEGIES

class Watched(StageTrainer):
    # Tells what the model is once the Trainer has prepared it.
    def _prepare_for_training(self, *args):
        prepared = super()._prepare_for_training(*args)
        parameters = list(self.model.parameters())
        held = sum((each.to_local() if is_sharded(each) else each).numel() for each in parameters)
        seen.update(wrapped=type(self.model_wrapped).__name__, held=held, all=sum(each.numel() for each in parameters))
        return prepared

trainers.train.StageTrainer = Watched
home, rank = Path(sys.argv[1]), int(sys.argv[3])
for name, fields in json.loads(sys.argv[2]):
    seen, logged = {}, {}
    start, work = fields.pop("start"), home / f"{name}-work"
    strategy, options = fields.pop("strategy", ("fine_tuning", {}))
    task = Mixed() if fields.pop("mixed", False) else get_task("parity")
    interrupted = fields.pop("interrupted", None)
    if interrupted:
        if rank == 0:
            shutil.copytree(home / f"{interrupted}-work", work)
            shutil.rmtree(work / "checkpoint-6")
        dist.barrier()
    spec = TrainSpec(**{**fields, "parts": tuple(fields["parts"])})
    log = lambda step, values: logged.setdefault(step, values)
    try:
        result = trainers.train.train_stage(Path(start), task, spec, home / name, work, log, STRATEGIES[strategy](**options))
        seen.update(resumed=result.resumed_from_step, logged=logged)
    except InputError as error:
        seen.update(refused=str(error))
    print(json.dumps({name: seen}), flush=True)
os._exit(0)  # all is told; the threads of gloo now and then abort a process that ends by itself
"""

FIELDS = {
    "parts": ["language_model.mlp", "projector"],
    "learning_rate": 1e-3,
    "max_steps": 7,
    "samples": 20,
    "batch_size": 8,
    "save_steps": 100,
    "log_steps": 1,
    "adam_epsilon": 1e-4,
}
FULL = {"sharding": "full"}
AVERAGED = {"strategy": ("sfa", {"share": 0.3, "keep_optimizer_state": False})}
ONE_BY_ONE = {"batch_size": 4, "micro_batch_size": 1, "max_steps": 5}
MIXED = {**ONE_BY_ONE, "mixed": True, "strategy": ("l2", {"weight": 5.0})}
SHORT = {"max_steps": 3}
STAGES: list[tuple[str, dict[str, Any]]] = [
    ("ddp", {}),
    ("full", FULL),
    ("gradients", {"sharding": "gradients"}),
    ("offloaded", {**FULL, "cpu_offload": True}),
    ("recomputed", {**FULL, "gradient_checkpointing": True}),
    ("saving", {**FULL, "save_steps": 2}),
    ("resumed", {**FULL, "save_steps": 2, "interrupted": "saving"}),
    ("tied ddp", {**SHORT, "parts": ["language_model"]}),
    ("tied full", {**FULL, **SHORT, "parts": ["language_model"]}),
    ("lora ddp", {**SHORT, "strategy": ("lora", {})}),
    ("lora full", {**SHORT, "strategy": ("lora", {}), **FULL}),
    ("averaged ddp", AVERAGED),
    ("averaged full", {**AVERAGED, **FULL}),
    ("mixed ddp", MIXED),
    ("mixed full", {**MIXED, **FULL}),
    ("projector ddp", {**MIXED, "parts": ["projector"]}),
    ("projector full", {**MIXED, "parts": ["projector"], **FULL}),
]


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base with input and output embeddings tied."""
    from models.digits_llava import digits_llava, digits_processor
    from models.load import save_checkpoint
    from tasks.digits import all_texts

    model = digits_llava(seed=0)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    directory = tmp_path_factory.mktemp("checkpoints") / "tied"
    save_checkpoint(model, digits_processor(all_texts()), directory)
    return directory


@pytest.fixture(scope="module")
def ran(base: Path, tied: Path, forks: Forking, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Where the stages' outputs lie, and what each worker saw of each stage."""
    home = tmp_path_factory.mktemp("sharded")
    stages = [(name, {**FIELDS, **more, "start": str(tied if name.startswith("tied") else base)}) for name, more in STAGES]
    return home, run_workers(forks, home, stages)


def run_workers(forks: Forking, home: Path, stages: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """What each of two workers saw of the stages, which they run one after another."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    here = {**os.environ, **shared, "OMP_NUM_THREADS": "1"}
    workers = [
        forks(PROGRAM, [str(home), json.dumps(stages), str(rank)], {**here, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    seen = []
    for worker in workers:
        output, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors[-3000:]
        seen.append({name: found for line in output.splitlines() if line.startswith("{") for name, found in json.loads(line).items()})
    return seen


def distance(first: Path, second: Path) -> float:
    """The largest difference of two outputs' weights."""
    one, two = (load_file(path / "model.safetensors") for path in (first, second))
    assert one.keys() == two.keys()
    return max((one[name] - two[name]).abs().max().item() for name in one)


def values(stage: dict[str, Any], name: str) -> list[float]:
    """What a stage logged, by step."""
    return [logged[name] for logged in stage["logged"].values() if name in logged]


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("full", "ddp"),
        ("gradients", "ddp"),
        ("offloaded", "full"),
        ("recomputed", "full"),
        ("tied full", "tied ddp"),
        ("lora full", "lora ddp"),
        ("averaged full", "averaged ddp"),
        ("mixed full", "mixed ddp"),
    ],
)
def test_sharded_learns_the_same(ran: tuple[Path, list[dict[str, Any]]], name: str, like: str) -> None:
    """Within the order of float32 sums (measured: below 2e-8 in the weights, 1e-6 of the losses): losses, gradient norms, weights."""
    home, (first, second) = ran
    assert distance(home / name, home / like) < 1e-6
    for value, tolerance in (("train/loss", 1e-5), ("train/grad_norm", 1e-4)):
        assert values(first[name], value) == pytest.approx(values(first[like], value), rel=tolerance)
    assert not second[name]["logged"]


def test_a_penalty_counts_once_whoever_shows_images(ran: tuple[Path, list[dict[str, Any]]], base: Path, tmp_path: Path) -> None:
    """Two workers do as one does, within the order of float32 sums; the penalty is logged by itself, 0 at the start."""
    home, (first, _) = ran
    alone: dict[int, dict[str, float]] = {}
    spec = TrainSpec(**{**FIELDS, **ONE_BY_ONE, "parts": tuple(FIELDS["parts"])})
    train_stage(base, Mixed(), spec, tmp_path / "alone", tmp_path / "work", alone.setdefault, L2ToStart(5.0))
    assert distance(home / "mixed ddp", tmp_path / "alone") < 1e-6
    penalties = values({"logged": alone}, "train/penalty")
    assert penalties[0] == 0 < penalties[-1]
    for name in ("mixed ddp", "mixed full"):
        assert values(first[name], "train/penalty") == pytest.approx(penalties, rel=1e-4)


def test_a_batch_that_would_teach_nothing_is_refused_by_all(ran: tuple[Path, list[dict[str, Any]]]) -> None:
    """One worker would break and the other wait for it."""
    _, seen = ran
    for name in ("projector ddp", "projector full"):
        assert all("a micro batch shows no image, but all that is trained runs for images alone" in each[name]["refused"] for each in seen)


def test_each_worker_holds_half(ran: tuple[Path, list[dict[str, Any]]]) -> None:
    """All weights are shared out, the frozen ones too, and nothing wraps the model; DDP holds everything twice."""
    _, seen = ran
    for name in ("full", "gradients", "offloaded"):
        assert [each[name]["wrapped"] for each in seen] == ["FSDPLlavaForConditionalGeneration"] * 2
        assert sum(each[name]["held"] for each in seen) == seen[0][name]["all"]
        assert max(each[name]["held"] for each in seen) < 0.51 * seen[0][name]["all"]
    assert [each["ddp"]["wrapped"] for each in seen] == ["DistributedDataParallel"] * 2
    assert seen[0]["ddp"]["held"] == seen[0]["ddp"]["all"]


def test_keeping_weights_after_forward_changes_no_bit(ran: tuple[Path, list[dict[str, Any]]]) -> None:
    home, _ = ran
    whole = directory_manifest(home / "full")
    assert directory_manifest(home / "gradients") == directory_manifest(home / "recomputed") == directory_manifest(home / "saving") == whole


def test_resumed_sharded_ends_with_the_same_bytes(ran: tuple[Path, list[dict[str, Any]]]) -> None:
    home, (first, _) = ran
    assert [first[name]["resumed"] for name in ("saving", "resumed")] == [0, 4]
    assert values(first["resumed"], "train/loss") == values(first["saving"], "train/loss")[4:]
    assert directory_manifest(home / "resumed") == directory_manifest(home / "saving")
