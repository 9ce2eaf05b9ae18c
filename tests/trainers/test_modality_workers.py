"""Two workers, in processes of their own on gloo, learn what one process learns from the whole batch: the same losses and gradients.

The workers run one stage after another, so that they start only once for all tests of this file.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from forking import Forking
from free_ports import free_port
from modality_stages import ALL, learning, run, start_for
from safetensors.torch import load_file

from foundation.files import directory_manifest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("forked")]

PROGRAM = """
import json, os, shutil, sys
from pathlib import Path
import torch
import torch.distributed as dist
from modality_stages import learning, run
home, rank = Path(sys.argv[1]), int(sys.argv[3])
for name, fields in json.loads(sys.argv[2]):
    logged = {}
    if interrupted := fields.pop("interrupted", None):
        if rank == 0:
            shutil.copytree(home / f"{interrupted}-work", home / f"{name}-work")
        dist.barrier()
    fields["parts"] = tuple(fields["parts"])
    result = run(home / "start", home, name, learning(**fields), lambda step, values: logged.setdefault(step, values))
    print(json.dumps({name: {"resumed": result.resumed_from_step, "logged": logged, "drawn": torch.initial_seed()}}), flush=True)
os._exit(0)  # all is told; the threads of gloo now and then abort a process that ends by itself
"""

BY_GRADIENT: dict[str, Any] = {
    "parts": ["glob:*"],
    "learning_rate": 1e9,
    "schedule": "constant",
    "warmup_ratio": 0.0,
    "max_grad_norm": 1e9,
    "adam_epsilon": 1e6,
    "max_steps": 1,
    "log_steps": 1,
}
"""AdamW that moves a weight by a thousand times its gradient, as g / (|g| + 1e6) is g / 1e6: far enough to read the gradient from it."""

TWO_STEPS = {**BY_GRADIENT, "learning_rate": 1e-3, "adam_epsilon": 1e-8, "max_steps": 2, "save_steps": 1}
STAGES = {
    "whole": BY_GRADIENT,
    "accumulated": {**BY_GRADIENT, "micro_batch_size": 2},
    "seldom": {**BY_GRADIENT, "objectives": ["retrieval"]},
    "undisturbed": TWO_STEPS,
    "resumed": {**TWO_STEPS, "interrupted": "undisturbed"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all stages write; holds their start. Its weights are large, lest all features be nearly one, and gradients cancel."""
    home = tmp_path_factory.mktemp("workers")
    start_for(home / "start", ALL, sharing="all", initializer_range=0.2)
    return home


@pytest.fixture(scope="module")
def told(home: Path, forks: Forking) -> list[dict[str, Any]]:
    """What each of two workers told of each stage."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    processes = []
    for rank in range(2):
        settings = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        processes.append(forks(PROGRAM, [str(home), json.dumps(list(STAGES.items())), str(rank)], settings))
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs[0][1][-3000:] + outputs[1][1][-3000:]
    lines = [[json.loads(line) for line in output.splitlines() if line.startswith("{")] for output, _ in outputs]
    return [{name: seen for line in each for name, seen in line.items()} for each in lines]


@pytest.mark.parametrize(("name", "micro"), [("whole", 8), ("accumulated", 4), ("seldom", 8)])
def test_two_workers_compute_what_one_does(home: Path, told: list[dict[str, Any]], name: str, micro: int) -> None:
    """Losses to float32's rounding; gradients to 1e-4 of each tensor's largest, as sums run in another order.

    Of the last one's weights, not all take part.
    """
    alone: dict[int, dict[str, float]] = {}
    fields = {**STAGES[name], "parts": ("glob:*",), "micro_batch_size": micro}
    run(home / "start", home, f"{name}-alone", learning(**fields), lambda *entry: alone.setdefault(*entry))
    for value, expected in alone[1].items():
        assert told[0][name]["logged"]["1"][value] == pytest.approx(expected, rel=1e-5), value
    start, one, two = (load_file(home / each / "model.safetensors") for each in ("start", f"{name}-alone", name))
    for tensor in start:
        gradients = [(each[tensor] - start[tensor]).double() for each in (one, two)]
        assert torch.allclose(*gradients, rtol=0, atol=1e-4 * float(gradients[0].abs().max())), tensor


def test_a_resumed_stage_of_two_workers_ends_as_if_undisturbed(home: Path, told: list[dict[str, Any]]) -> None:
    assert told[0]["resumed"]["resumed"] == 1
    assert directory_manifest(home / "undisturbed") == directory_manifest(home / "resumed")


def test_workers_draw_numbers_of_their_own(told: list[dict[str, Any]]) -> None:
    """Or all would drop the same layers of their first samples."""
    assert told[0]["whole"]["drawn"] != told[1]["whole"]["drawn"]
    assert told[0]["whole"]["drawn"] == told[0]["accumulated"]["drawn"]
