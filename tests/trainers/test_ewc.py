"""Elastic Weight Consolidation: the formula over several Fisher files, its identities, and files that do not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from penalised import SHORT, Everything, Wrapped, changed, is_trained, moved_model, resumed_is_undisturbed, tensors
from safetensors.torch import load_file, save_file

from foundation.errors import ConfigError, InputError
from foundation.files import directory_manifest
from models.load import load_model
from tasks.registry import get_task
from trainers.anchor import trained_weights
from trainers.fisher.measure import fisher
from trainers.fisher.statistics import names_on_disk
from trainers.strategies.ewc import ElasticWeightConsolidation
from trainers.strategy import Context
from trainers.train import StageResult

Stage = Callable[..., StageResult]
NAME = "language_model.model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def fishers(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """The Fisher files of three earlier stages, oldest first."""
    directory = tmp_path_factory.mktemp("fishers")
    tasks = ("parity", "read", "count")
    for task in tasks:
        fisher(base, get_task(task), ("language_model.mlp", "projector"), 3, 0, directory / task)
    return tuple(directory / task for task in tasks)


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_the_penalty_is_the_formula(base: Path, spec: Any, fishers: tuple[Path, ...], decay: float) -> None:
    """Value and gradient against float64, to float32's rounding."""
    model = load_model(base, torch.float32)
    penalty = ElasticWeightConsolidation(7.0, decay).start(model, Context(base, spec, 7, fishers)).penalty
    assert penalty is not None
    start = {name: weight.detach().clone() for name, weight in trained_weights(model).items()}
    assert float(penalty(model).detach()) == 0
    for weight, moved in zip(model.parameters(), moved_model(base).parameters(), strict=True):
        weight.data.copy_(moved.detach())
    value = penalty(model)
    value.backward()
    on_disk, files = names_on_disk(model, start), [load_file(path) for path in fishers]
    expected = torch.zeros((), dtype=torch.float64)
    for name, weight in trained_weights(model).items():
        importance = sum(decay**age * file[on_disk[name]].double() for age, file in enumerate(reversed(files)))
        apart = weight.detach().double() - start[name].double()
        expected += (7.0 / 2 * importance * apart**2).sum()
        gradient = 7.0 * importance * apart
        torch.testing.assert_close(weight.grad.double(), gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))
    torch.testing.assert_close(value.detach().double(), expected, rtol=1e-5, atol=0)
    assert float(expected) > 0


def test_without_earlier_stages_or_weight_it_is_plain(
    base: Path, spec: Any, stage: Stage, fishers: tuple[Path, ...], tmp_path: Path
) -> None:
    """And with both, what many answers rest on moves less than it does without."""
    assert ElasticWeightConsolidation().start(load_model(base), Context(base, spec, 7)).penalty is None
    stage("plain", **SHORT)
    stage("zero", strategy=Wrapped(ElasticWeightConsolidation(weight=0.0), fishers=fishers), **SHORT)
    stage("held", strategy=Wrapped(ElasticWeightConsolidation(weight=1e6), fishers=fishers), **SHORT)
    assert directory_manifest(tmp_path / "plain") == directory_manifest(tmp_path / "zero")
    assert changed(base, tmp_path / "held") == {name for name in tensors(base) if is_trained(name)}
    importance = load_file(fishers[0])[NAME].double()
    moved = [float((importance * (tensors(tmp_path / name)[NAME] - tensors(base)[NAME]) ** 2).sum()) for name in ("plain", "held")]
    assert moved[1] < 0.9 * moved[0]


def test_resumed_is_undisturbed(stage: Stage, tmp_path: Path, fishers: tuple[Path, ...]) -> None:
    """Together with a teacher and with averages, whose start too is the stage's, not the checkpoint's."""
    strategy = Everything(ElasticWeightConsolidation(1e5))
    resumed_is_undisturbed(stage, tmp_path, strategy, at=5, resumed_from=4, fishers=fishers)


def test_memory() -> None:
    assert (ElasticWeightConsolidation(0.0).memory(100, 10), ElasticWeightConsolidation(1.0).memory(100, 10)) == (0, 80)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.pop(NAME), f"holds nothing for 1 trained weights, e.g. '{NAME}'; measure it for all parts"),
        (lambda file: file.update({NAME: torch.zeros(3)}), r"has shape \[3\], the model's is \[128, 320\]"),
        (lambda file: file[NAME].view(-1)[5:6].fill_(-1.0), "negative or not finite"),
        (lambda file: file[NAME].view(-1)[5:6].fill_(torch.inf), "negative or not finite"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    base: Path, spec: Any, fishers: tuple[Path, ...], tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], None], said: str
) -> None:
    file = load_file(fishers[1])
    change(file)
    save_file(file, tmp_path / "changed")
    with pytest.raises(InputError, match=said):
        ElasticWeightConsolidation().start(load_model(base), Context(base, spec, 7, (fishers[0], tmp_path / "changed")))


def test_what_is_no_safetensors_file_is_refused(base: Path, spec: Any, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("Fisher information")
    for path in (tmp_path / "text", tmp_path / "absent"):
        with pytest.raises(InputError, match="cannot be read as safetensors"):
            ElasticWeightConsolidation().start(load_model(base), Context(base, spec, 7, (path,)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"weight": -1.0}, r"strategy ewc: weight is -1.0; give a number of 0 or more"),
        ({"decay": 1.1}, r"decay is 1.1; give a number from 0 to 1"),
        ({"samples": 0}, "samples is 0; give 1 or more"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ElasticWeightConsolidation(**values)
