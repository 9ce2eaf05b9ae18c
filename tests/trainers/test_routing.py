"""Expert routing: the original stays as it is, the experts and routers learn, stage after stage."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from evaluators.generate import load_answerer
from foundation.errors import ConfigError, InputError
from foundation.files import directory_manifest
from models.experts import WEIGHTS_FILE, refuse_trained_originals, routed_mlps
from models.load import load_model
from trainers.spec import TrainSpec
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.lora import LoRA
from trainers.strategies.routing import Routing, router_loss
from trainers.strategy import Adaptation, Context
from trainers.train import StageResult

Stage = Callable[..., StageResult]
WEIGHTS = "model.safetensors"
MLP = ("language_model.mlp",)


def started(base: Path, spec: TrainSpec, strategy: Routing, **changes: Any) -> tuple[Any, Adaptation]:
    model = load_model(base, torch.float32)
    return model, strategy.start(model, Context(base, replace(spec, **changes), 7))


def batch_of(rows: int, **more: Any) -> dict[str, Any]:
    """`rows` rows of text: the last two tokens are the answer, and the first row ends in one of padding."""
    ids = torch.randint(5, 60, (4, 6), generator=torch.Generator().manual_seed(0))[:rows]
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :4] = -100
    labels[0, -1], mask[0, -1] = -100, 0
    return {"input_ids": ids, "labels": labels, "attention_mask": mask, **more}


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_original_keeps_its_bytes_and_the_experts_learn(base: Path, stage: Stage, tmp_path: Path, top_k: int) -> None:
    result = stage("tuned", parts=MLP, max_steps=2, strategy=Routing(top_k=top_k, initial_bias=1.0))
    assert (tmp_path / "tuned" / WEIGHTS).read_bytes() == (base / WEIGHTS).read_bytes()
    mlps = routed_mlps(load_model(tmp_path / "tuned"))
    fresh = routed_mlps(started(base, TrainSpec(parts=MLP, learning_rate=1.0), Routing(top_k=top_k, initial_bias=1.0))[0])
    for layer, mlp in mlps.items():
        assert not torch.equal(mlp.tuned.gate_proj.weight, mlp.original.gate_proj.weight)
        assert not torch.equal(mlp.router.weight, fresh[layer].router.weight)
        assert not torch.equal(mlp.router.bias, fresh[layer].router.bias)
    experts, routers = 3 * 3 * 128 * 320, 3 * (128 * 2 + 2)
    assert result.trained_parameters == {"language_model.mlp (tuned experts)": experts, "language_model.mlp (routers)": routers}
    assert Routing().memory(1000, 100) == 400


def test_evaluation_asks_with_the_top_k_of_the_training(stage: Stage, tmp_path: Path) -> None:
    stage("tuned", parts=MLP, max_steps=1, strategy=Routing(top_k=1))
    model = load_answerer(tmp_path / "tuned", torch.device("cpu")).model
    assert {mlp.top_k for mlp in routed_mlps(model).values()} == {1}


def test_the_next_stage_goes_on_with_the_same_experts(base: Path, spec: TrainSpec, stage: Stage, tmp_path: Path) -> None:
    stage("first", parts=MLP, max_steps=2, strategy=Routing())
    model, _ = started(tmp_path / "first", spec, Routing(), parts=MLP)
    saved = routed_mlps(load_model(tmp_path / "first"))
    for layer, mlp in routed_mlps(model).items():
        pairs = zip(mlp.parameters(), saved[layer].parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    stage("second", start=tmp_path / "first", parts=MLP, max_steps=2, strategy=Routing())
    assert (tmp_path / "second" / WEIGHTS).read_bytes() == (base / WEIGHTS).read_bytes()
    first, second = load_file(tmp_path / "first" / WEIGHTS_FILE), load_file(tmp_path / "second" / WEIGHTS_FILE)
    assert first.keys() == second.keys()
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_other_parts_learn_beside_the_experts(base: Path, stage: Stage, tmp_path: Path) -> None:
    result = stage("tuned", max_steps=2, strategy=Routing(freeze_router=True))
    before, after = load_file(base / WEIGHTS), load_file(tmp_path / "tuned" / WEIGHTS)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("multi_modal_projector.")}
    assert result.trained_parameters.keys() == {"language_model.mlp (tuned experts)", "projector"}


def test_a_frozen_router_stays_as_it_began(base: Path, spec: TrainSpec, stage: Stage, tmp_path: Path) -> None:
    frozen = Routing(freeze_router=True, initial_bias=0.5)
    stage("tuned", parts=MLP, max_steps=2, strategy=frozen)
    model, adaptation = started(base, spec, frozen, parts=MLP)
    stored = load_file(tmp_path / "tuned" / WEIGHTS_FILE)
    for layer, mlp in routed_mlps(model).items():
        assert torch.equal(stored[f"layers.{layer}.mlp.router.weight"], mlp.router.weight)
        assert stored[f"layers.{layer}.mlp.router.bias"].tolist() == [-0.5, 0.5]
    assert adaptation.loss is None


def test_in_bfloat16_the_experts_are_rounded_like_the_model(rounded: Path, stage: Stage, tmp_path: Path) -> None:
    stage("tuned", start=rounded, parts=MLP, max_steps=2, strategy=Routing())
    assert {tensor.dtype for tensor in load_file(tmp_path / "tuned" / WEIGHTS_FILE).values()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in load_model(tmp_path / "tuned", torch.bfloat16).parameters()} == {torch.bfloat16}


@pytest.fixture
def rounded(base: Path, tmp_path: Path) -> Path:
    """The base in bfloat16."""
    from safetensors.torch import save_file

    target = tmp_path / "start"
    target.mkdir()
    for path in base.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    save_file({name: tensor.bfloat16() for name, tensor in load_file(base / WEIGHTS).items()}, target / WEIGHTS, {"format": "pt"})
    return target


def naive_loss(scores: list[torch.Tensor], batch: dict[str, Any]) -> float:
    """The auxiliary loss times the answer tokens, in float64, one token at a time."""
    total = 0.0
    for layer in scores:
        for row in range(len(layer)):
            tokens = [position for position in range(layer.shape[1]) if batch["attention_mask"][row, position]]
            answers = int((batch["labels"][row] != -100).sum())
            wanted = 0 if bool(batch.get("rehearsed", torch.zeros(len(layer)))[row]) else 1
            losses = [-layer[row, position].double().softmax(0)[wanted].log().item() for position in tokens]
            total += answers * sum(losses) / len(losses)
    return total / len(scores)


@pytest.mark.parametrize("rehearsed", [None, [False, True, True, False]])
def test_the_auxiliary_loss_is_a_mean_that_no_cut_changes(rehearsed: list[bool] | None) -> None:
    batch = batch_of(4, **({} if rehearsed is None else {"rehearsed": torch.tensor(rehearsed)}))
    scores = [torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(layer)) for layer in range(3)]
    whole = router_loss(scores, batch).item()
    assert whole == pytest.approx(naive_loss(scores, batch), rel=1e-6)  # float32 sums
    pieces = [
        router_loss([each[rows] for each in scores], {name: tensor[rows] for name, tensor in batch.items()}).item()
        for rows in (slice(0, 1), slice(1, 4))
    ]
    assert sum(pieces) == pytest.approx(whole, rel=1e-6)


def test_the_auxiliary_loss_sends_own_examples_to_the_tuned_expert_and_rehearsed_ones_to_the_original(base: Path, spec: TrainSpec) -> None:
    for rehearsed, sign in ((False, 1), (True, -1)):
        model, adaptation = started(base, spec, Routing(aux_weight=1.0), parts=MLP)
        batch = batch_of(4)
        outputs = model.train()(**batch)
        adaptation.loss(model, {**batch, "rehearsed": torch.full((4,), rehearsed)}, outputs, torch.tensor(7)).backward()
        for mlp in routed_mlps(model).values():
            downhill = -mlp.router.bias.grad
            assert downhill[1] * sign > 0 > downhill[0] * sign
            assert all(parameter.grad is None for parameter in mlp.original.parameters())


def gradients(base: Path, spec: TrainSpec, **checkpointing: Any) -> dict[str, torch.Tensor]:
    model, adaptation = started(base, spec, Routing(aux_weight=0.1), parts=MLP)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(checkpointing)
    batch = batch_of(4)
    adaptation.loss(model, batch, model(**batch), torch.tensor(7)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_gradient_checkpointing_changes_nothing(base: Path, spec: TrainSpec) -> None:
    plain, again = gradients(base, spec), gradients(base, spec, use_reentrant=False)
    assert len(plain) == 3 * (3 + 2)
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_checkpointing_that_would_lose_the_auxiliary_loss_is_refused(base: Path, spec: TrainSpec) -> None:
    with pytest.raises(InputError, match="routers of 3 of 3 layers gave no scores that gradients reach"):
        gradients(base, spec, use_reentrant=True)


class CrashError(Exception):
    """Thrown in the middle of a stage."""


class Crash(TrainerCallback):
    """Throws after step 5."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Throw where it is time."""
        if state.global_step == 5:
            raise CrashError


@dataclass(frozen=True)
class Crashing(Routing):
    """Routing that crashes, or not, which is no part of what the stage is."""

    crash: bool = field(default=False, repr=False)

    def start(self, model: Any, context: Context) -> Adaptation:
        """As Routing does."""
        adaptation = super().start(model, context)
        return replace(adaptation, callbacks=(Crash(),)) if self.crash else adaptation


def test_a_crashed_stage_ends_as_if_undisturbed(stage: Stage, tmp_path: Path) -> None:
    undisturbed = stage("whole", strategy=Crashing())
    with pytest.raises(CrashError):
        stage("parts", strategy=Crashing(crash=True))
    resumed = stage("parts", strategy=Crashing())
    assert (resumed.resumed_from_step, resumed.loss) == (4, undisturbed.loss)
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "parts")


def test_micro_batches_add_up_to_the_batch(stage: Stage, tmp_path: Path) -> None:
    """Sums run in another order, so not bit for bit. A large epsilon keeps Adam from blowing rounding up to whole steps of 1e-3."""
    stage("whole", max_steps=2, adam_epsilon=1e-4, strategy=Routing(aux_weight=0.5))
    stage("pieces", max_steps=2, adam_epsilon=1e-4, micro_batch_size=2, strategy=Routing(aux_weight=0.5))
    whole, pieces = load_file(tmp_path / "whole" / WEIGHTS_FILE), load_file(tmp_path / "pieces" / WEIGHTS_FILE)
    assert max((whole[name] - pieces[name]).abs().max().item() for name in whole) < 1e-5


def test_another_top_k_than_the_start_s_is_refused(spec: TrainSpec, stage: Stage, tmp_path: Path) -> None:
    stage("tuned", parts=MLP, max_steps=1, strategy=Routing(top_k=2))
    with pytest.raises(InputError, match=r"tuned was trained with top_k 2, this stage has 1; set top_k to 2"):
        started(tmp_path / "tuned", spec, Routing(top_k=1), parts=MLP)


@pytest.mark.parametrize("strategy", [FineTuning(), LoRA(rank=2)])
def test_no_other_strategy_trains_the_original(base: Path, spec: TrainSpec, strategy: Any) -> None:
    for parts in (("projector",), MLP):
        model, _ = started(base, spec, Routing(), parts=MLP)
        refuse_trained_originals(model)
        strategy.start(model, Context(base, replace(spec, parts=parts), 7))
        if parts == MLP:
            with pytest.raises(
                InputError, match="would train the original MLP of layer 0, which has to stay as it is; use strategy routing"
            ):
                refuse_trained_originals(model)
        else:
            refuse_trained_originals(model)


def test_parts_that_are_no_experts_are_refused(base: Path, spec: TrainSpec) -> None:
    with pytest.raises(ConfigError, match=r"experts of language_model.mlp, but the parts are projector; name it"):
        started(base, spec, Routing(), parts=("projector",))
    with pytest.raises(InputError, match="in common"):
        started(base, spec, Routing(), parts=("language_model", *MLP))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"top_k": 3}, "top_k is 3; there are two experts, give 1 or 2"),
        ({"aux_weight": -0.1}, "aux_weight is -0.1; give 0 or more"),
        ({"initial_bias": float("nan")}, "initial_bias is nan; give a number"),
        ({"top_k": 1, "aux_weight": 0.0}, "with top_k 1 only the auxiliary loss teaches the router"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Routing(**settings)
