"""One stage, start to checkpoint: what changes, what must not, and what is logged."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from foundation.errors import ConfigError, InputError
from foundation.files import directory_manifest
from models.load import load_model
from tasks.registry import get_task
from trainers.data.order import StageOrder
from trainers.loop import StageTrainer, training_arguments
from trainers.spec import TrainSpec, plan_batches
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.table import STRATEGIES
from trainers.strategy import Adaptation, Context
from trainers.train import StageResult, train_stage

Stage = Callable[..., StageResult]
Tensors = dict[str, tuple[str, list[int], bytes]]
WEIGHTS = "model.safetensors"


def on_disk(checkpoint: Path) -> Tensors:
    """Name -> dtype, shape and bytes of every tensor, read from the file itself."""
    data = (checkpoint / WEIGHTS).read_bytes()
    first = 8 + int.from_bytes(data[:8], "little")
    header = {name: entry for name, entry in json.loads(data[8:first]).items() if name != "__metadata__"}
    cut = {name: entry["data_offsets"] for name, entry in header.items()}
    return {name: (entry["dtype"], entry["shape"], data[first + cut[name][0] : first + cut[name][1]]) for name, entry in header.items()}


def recast(source: Path, target: Path, dtype_of: Callable[[str], torch.dtype]) -> Path:
    """A copy of a checkpoint in other dtypes."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tensors = {name: tensor.to(dtype_of(name)) for name, tensor in load_file(source / WEIGHTS).items()}
    save_file(tensors, target / WEIGHTS, {"format": "pt"})
    return target


def is_trained(name: str) -> bool:
    """Whether SPEC trains the tensor with this name on disk."""
    return name.startswith("multi_modal_projector.") or (name.startswith("language_model.") and ".mlp." in name)


@pytest.mark.parametrize(
    "dtype_of",
    [
        lambda name: torch.float32,
        lambda name: torch.bfloat16,
        lambda name: torch.float32 if "norm" in name else torch.bfloat16,
    ],
    ids=["float32", "bfloat16", "mixed"],
)
def test_frozen_weights_keep_their_bytes(base: Path, stage: Stage, tmp_path: Path, dtype_of: Callable[[str], torch.dtype]) -> None:
    start = recast(base, tmp_path / "start", dtype_of)
    stage("tuned", start=start)
    before, after = on_disk(start), on_disk(tmp_path / "tuned")
    assert before.keys() == after.keys()
    assert [before[name][:2] for name in before] == [after[name][:2] for name in before]
    assert {name for name in before if before[name] != after[name]} == {name for name in before if is_trained(name)}


def test_all_other_files_are_the_start_s(base: Path, stage: Stage, tmp_path: Path) -> None:
    stage("tuned")
    before, after = directory_manifest(base), directory_manifest(tmp_path / "tuned")
    assert {name for name in before if before[name] != after.get(name)} == {WEIGHTS}
    assert before.keys() == after.keys()


def test_names_on_disk_follow_the_start(base: Path, stage: Stage, tmp_path: Path) -> None:
    """A start saved under its names in memory stays so: a later merge finds equal names."""
    start = recast(base, tmp_path / "start", lambda name: torch.float32)
    load_model(base).save_pretrained(start, save_original_format=False)
    assert on_disk(start).keys() != on_disk(base).keys()
    stage("tuned", start=start)
    assert on_disk(start).keys() == on_disk(tmp_path / "tuned").keys()


def test_the_same_stage_gives_the_same_bytes(stage: Stage, tmp_path: Path) -> None:
    first, second = stage("first"), stage("second", save_steps=100, log_steps=1)
    stage("seed", seed=1)
    manifests = {name: directory_manifest(tmp_path / name) for name in ("first", "second", "seed")}
    assert manifests["first"] == manifests["second"] != manifests["seed"]
    assert first.files == manifests["first"]
    assert (first.steps, first.samples, first.epochs, first.resumed_from_step) == (7, 56, 56 / 20, 0)
    assert first.trained_parameters.keys() == {"language_model.mlp", "projector"}
    assert 0 < sum(second.trained_parameters.values()) < second.total_parameters


def test_what_is_logged(stage: Stage) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    singles: list[tuple[int, dict[str, float]]] = []
    result = stage("windows", on_log=lambda step, values: logged.append((step, values)))
    stage("steps", on_log=lambda step, values: singles.append((step, values)), log_steps=1)
    *steps, (last, speed) = logged
    losses = [values["train/loss"] for _, values in singles[:-1]]
    assert [step for step, _ in steps] == [3, 6, 7]
    assert [values["train/loss"] for _, values in steps] == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:6]) / 3, losses[6]], rel=1e-12)
    assert steps[-1][1]["train/loss"] == result.loss < losses[0]
    assert all(values["train/grad_norm"] > 0 for _, values in steps)
    rates = [values["train/learning_rate"] for _, values in steps]
    assert 1e-3 > rates[0] > rates[1] > rates[2] >= 0  # the cosine comes down
    assert last == 7
    assert speed == {"train/samples_per_second": result.samples_per_second}


def test_a_loss_that_is_no_number_is_an_error(base: Path, stage: Stage, tmp_path: Path) -> None:
    start = recast(base, tmp_path / "start", lambda name: torch.float32)
    tensors = load_file(start / WEIGHTS)
    tensors["multi_modal_projector.linear_1.weight"][0, 0] = float("nan")
    save_file(tensors, start / WEIGHTS, {"format": "pt"})
    with pytest.raises(InputError, match=r"step 1 of 7: loss is nan with learning_rate 0.001"):
        stage("broken", start=start, save_steps=1)
    assert not (tmp_path / "broken").exists()
    assert not list((tmp_path / "broken-work").glob("checkpoint-*"))


def test_micro_batches_add_up_to_the_batch(stage: Stage, tmp_path: Path) -> None:
    """Sums run in another order, so not bit for bit. A large epsilon keeps Adam from blowing rounding up to whole steps of 1e-3."""
    stage("whole", adam_epsilon=1e-4)
    stage("pieces", micro_batch_size=2, adam_epsilon=1e-4)
    whole, pieces = load_file(tmp_path / "whole" / WEIGHTS), load_file(tmp_path / "pieces" / WEIGHTS)
    assert max((whole[name] - pieces[name]).abs().max().item() for name in whole) < 1e-5


def test_bfloat16_arithmetic_keeps_the_dtype_on_disk(stage: Stage, tmp_path: Path) -> None:
    exact, coarse = stage("exact"), stage("coarse", precision="bfloat16")
    first, second = on_disk(tmp_path / "exact"), on_disk(tmp_path / "coarse")
    assert first != second
    assert [first[name][0] for name in first] == [second[name][0] for name in first]
    assert coarse.loss == pytest.approx(exact.loss, rel=0.05)  # bfloat16 rounds to 3 digits; seven steps


def test_a_start_that_float32_cannot_hold_is_refused(base: Path, stage: Stage, tmp_path: Path) -> None:
    start = recast(base, tmp_path / "start", lambda name: torch.float64 if "norm" in name else torch.float32)
    with pytest.raises(InputError, match="is F64; a stage starts from"):
        stage("never", start=start)


def test_workers_that_cannot_share_the_batch_are_refused_first(
    base: Path, spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="batch_size 8 cannot be shared by 3 workers"):
        train_stage(base, get_task("parity"), spec, tmp_path / "never", tmp_path / "work")
    assert not list(tmp_path.iterdir())


def test_settings_of_the_process_are_put_back(stage: Stage) -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    stage("tuned", max_steps=1, threads=2)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_biases_and_norms_do_not_decay(base: Path, spec: TrainSpec, tmp_path: Path) -> None:
    model = load_model(base, torch.float32)
    spec = replace(spec, parts=("language_model", "projector"), weight_decay=0.1)
    batches = plan_batches(spec, 1, 20)
    adaptation = FineTuning().start(model, Context(base, spec, batches.steps))
    order = StageOrder(20, spec.batch_size, batches, spec.seed)
    trainer = StageTrainer(model, training_arguments(spec, batches, tmp_path), order, lambda indices: {}, adaptation, [])
    groups = trainer.create_optimizer().param_groups
    decay_of = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        expected = None if not parameter.requires_grad else 0.0 if "norm" in name or name.endswith("bias") else 0.1
        assert decay_of.get(id(parameter)) == expected, name


@dataclass(frozen=True)
class Scaled(FineTuning):
    """Fine-tuning with its loss times a factor, and a last touch at the end."""

    factor: float = 1.0
    shift: float = 0.0

    def start(self, model: Any, context: Context) -> Adaptation:
        """Freeze as FineTuning does."""
        return replace(super().start(model, context), loss=self._loss, finish=self._finish)

    def _loss(self, model: Any, batch: Mapping[str, torch.Tensor], outputs: Any, answer_tokens: torch.Tensor) -> torch.Tensor:
        assert answer_tokens == (batch["labels"] != -100).sum()
        return outputs.loss * self.factor

    def _finish(self, model: Any) -> Any:
        with torch.no_grad():
            model.model.multi_modal_projector.linear_2.bias.add_(self.shift)
        return model


def test_a_strategy_s_loss_takes_the_place_of_the_model_s(stage: Stage, spec: TrainSpec, tmp_path: Path) -> None:
    plain = stage("plain")
    same = stage("same", strategy=Scaled(1.0))
    double = stage("double", strategy=Scaled(2.0), max_grad_norm=0)
    assert directory_manifest(tmp_path / "plain") == directory_manifest(tmp_path / "same") != directory_manifest(tmp_path / "double")
    assert plain.loss == same.loss < double.loss


def test_a_strategy_s_finish_comes_last(stage: Stage, spec: TrainSpec, tmp_path: Path) -> None:
    stage("plain")
    stage("shifted", strategy=Scaled(1.0, shift=1.0))
    plain, shifted = load_file(tmp_path / "plain" / WEIGHTS), load_file(tmp_path / "shifted" / WEIGHTS)
    name = "multi_modal_projector.linear_2.bias"
    assert [each for each in plain if not torch.equal(plain[each], shifted[each])] == [name]
    assert torch.equal(plain[name] + 1.0, shifted[name])


NEEDED: dict[str, dict[str, Any]] = {"replay": {"count": 4}}
"""Settings without which a strategy cannot be made."""


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_in_the_table_starts(base: Path, spec: TrainSpec, name: str) -> None:
    strategy = STRATEGIES[name](**NEEDED.get(name, {}))
    assert sum(strategy.start(load_model(base), Context(base, spec, 7)).trained.values()) > 0
