"""L2 to the start: the formula, its identities, and the same penalty for sharded weights."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forking import Forking
from free_ports import free_port
from penalised import CALM, SHORT, Everything, changed, distance, is_trained, largest_difference, moved_model, tensors

from foundation.errors import ConfigError
from foundation.files import directory_manifest
from models.load import load_model
from models.parts import set_trainable
from trainers.anchor import Pull, copies, trained_weights
from trainers.strategies.l2 import L2ToStart
from trainers.strategy import Context
from trainers.train import StageResult

Stage = Callable[..., StageResult]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_penalty_is_the_formula(base: Path, spec: Any, weighted: bool) -> None:
    model, start = moved_model(base), load_model(base, torch.float32)
    for each in (model, start):
        set_trainable(each, spec.parts)
    before = copies(start)
    generator = torch.Generator().manual_seed(2)
    importance = {name: torch.rand(value.shape, generator=generator) for name, value in before.items()} if weighted else None
    value = Pull(3.0, before, importance)(model)
    value.backward()
    expected = torch.zeros((), dtype=torch.float64)
    for name, weight in trained_weights(model).items():
        factor = importance[name].double() if importance else 1.0
        apart = weight.detach().double() - before[name].double()
        expected += (3.0 / 2 * factor * apart**2).sum()
        torch.testing.assert_close(weight.grad.double(), 3.0 * factor * apart, rtol=1e-5, atol=1e-7)  # float32's rounding
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
    assert all(weight.grad is None for weight in model.parameters() if not weight.requires_grad)


def test_wrapped_models_are_the_same_weights(base: Path, spec: Any) -> None:
    model = moved_model(base)
    set_trainable(model, spec.parts)
    pull = Pull(1.0, copies(load_trained_alike(base, spec)))
    plain = pull(model)
    for name in ("module", "_orig_mod"):  # as DistributedDataParallel and torch.compile call what they wrap
        wrapper = torch.nn.Module()
        setattr(wrapper, name, model)
        assert torch.equal(plain, pull(wrapper))


def load_trained_alike(base: Path, spec: Any) -> Any:
    model = load_model(base, torch.float32)
    set_trainable(model, spec.parts)
    return model


def test_weight_zero_is_plain_and_more_holds_back(base: Path, spec: Any, stage: Stage, tmp_path: Path) -> None:
    stage("plain", **SHORT)
    for weight in (0.0, 10.0):
        stage(f"weight-{weight}", strategy=L2ToStart(weight), **SHORT)
    assert directory_manifest(tmp_path / "plain") == directory_manifest(tmp_path / "weight-0.0")
    assert L2ToStart(0.0).start(load_model(base), Context(base, spec, 7)).penalty is None
    assert (L2ToStart(0.0).memory(100, 10), L2ToStart(1.0).memory(100, 10)) == (0, 40)
    found = [distance(base, tmp_path / f"weight-{weight}") for weight in (0.0, 10.0)]
    assert found[0] > found[1]
    assert changed(base, tmp_path / "weight-10.0") == {name for name in tensors(base) if is_trained(name)}


def test_once_per_step_however_the_batch_is_cut(stage: Stage, tmp_path: Path) -> None:
    """Counted once per micro batch it would weigh four times as much and end 1e-3 away (measured)."""
    for name, micro in (("whole", 8), ("pieces", 2)):
        stage(name, strategy=L2ToStart(40.0), micro_batch_size=micro, **SHORT, **CALM)
    assert largest_difference(tmp_path / "whole", tmp_path / "pieces") < 1e-5


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"strategy l2: weight is -2; give a number of 0 or more"):
        L2ToStart(weight=-2)


WORKER = """
import copy, json, os, sys
from pathlib import Path
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from penalised import Everything
from tasks.registry import get_task
from trainers.anchor import Pull, copies
from trainers.strategies.averaging import Averaging
from trainers.spec import TrainSpec
from trainers.train import train_stage

def sharded():
    # One penalty and one average, whole and in pieces (5 rows over two workers: unequal ones).
    torch.manual_seed(0)
    whole = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 4))
    start = copies(whole)
    with torch.no_grad():
        for weight in whole.parameters():
            weight += torch.randn_like(weight)
    mesh = init_device_mesh("cpu", (2,))
    parts = copy.deepcopy(whole)
    for layer in parts:
        for name, weight in list(layer.named_parameters()):
            setattr(layer, name, torch.nn.Parameter(distribute_tensor(weight.detach(), mesh, [Shard(0)])))
    values = [Pull(3.0, start, {name: value.square() for name, value in start.items()})(each) for each in (whole, parts)]
    for value in values:
        value.backward()
    pairs = [(a.grad, b.grad.full_tensor()) for a, b in zip(whole.parameters(), parts.parameters())]
    state = type("State", (), {"global_step": 6, "max_steps": 7})
    for each in (whole, parts):
        Averaging(start, 5, 0.25, True).on_optimizer_step(None, state, None, model=each)
    pairs += [(a.detach(), b.detach().full_tensor()) for a, b in zip(whole.parameters(), parts.parameters())]
    return {"values": [float(value) for value in values], "equal": [bool(torch.equal(a, b)) for a, b in pairs]}

start, output, work, fields = sys.argv[1:]
spec = TrainSpec(**{**json.loads(fields), "parts": tuple(json.loads(fields)["parts"])})
train_stage(Path(start), get_task("parity"), spec, Path(output), Path(work), None, Everything())
print(json.dumps(sharded()), flush=True)
os._exit(0)  # all is told; the threads of gloo now and then abort a process that ends by itself
"""


@pytest.mark.slow
@pytest.mark.xdist_group("forked")
def test_two_workers_learn_as_one(base: Path, spec: Any, stage: Stage, forks: Forking, tmp_path: Path) -> None:
    """Teacher, pull and averages with the batch shared by two workers: close to one worker, since sums run in another order.

    Then, with the weights themselves shared out: the same penalty, gradient and average as of whole weights.
    """
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    arguments = [str(base), str(tmp_path / "two"), str(tmp_path / "two-work"), json.dumps({**spec.identity, **CALM})]
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **shared}
    workers = [forks(WORKER, arguments, {**settings, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")]
    stage("one", strategy=Everything(), **CALM)
    printed = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], [errors[-3000:] for _, errors in printed]
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-5
    for output, _ in printed:
        told = json.loads(output.splitlines()[-1])
        assert told["values"][0] == pytest.approx(told["values"][1], rel=1e-6)  # one rounding more to float32
        assert told["equal"] == [True] * 8
