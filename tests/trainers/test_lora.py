"""LoRA: only the adapters learn, and what is written is a plain checkpoint that computes what the adapted model computed."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from foundation.errors import ConfigError, InputError
from foundation.files import directory_manifest
from models.load import load_model
from trainers.spec import TrainSpec
from trainers.strategies.lora import LoRA, linear_layers
from trainers.strategy import Adaptation, Context
from trainers.train import StageResult

Stage = Callable[..., StageResult]
WEIGHTS = "model.safetensors"
MLP = ("language_model.mlp",)
IDS = torch.tensor([[5, 9, 12, 7, 30]])


def started(base: Path, spec: TrainSpec, strategy: LoRA, **changes: Any) -> tuple[Any, Adaptation]:
    model = load_model(base, torch.float32)
    return model, strategy.start(model, Context(base, replace(spec, **changes), 7))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def in_bfloat16(base: Path, target: Path) -> Path:
    target.mkdir()
    for path in base.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    save_file({name: tensor.bfloat16() for name, tensor in load_file(base / WEIGHTS).items()}, target / WEIGHTS, {"format": "pt"})
    return target


def test_folded_is_applied(base: Path, spec: TrainSpec) -> None:
    """W x + s B (A x) against (W + s B A) x in float32: the logits, about 1 in size, differ by rounding alone."""
    model, adaptation = started(base, spec, LoRA(rank=8, alpha=16, dropout=0.5))
    plain = load_model(base, torch.float32)
    assert torch.equal(logits(model), logits(plain))  # B starts at zero
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    applied = logits(model)
    folded = adaptation.finish(model)
    assert (applied - logits(plain)).abs().max() > 0.05
    torch.testing.assert_close(logits(folded), applied, rtol=0, atol=2e-5)
    assert [(name, type(module)) for name, module in folded.named_modules()] == [(name, type(each)) for name, each in plain.named_modules()]
    assert folded.state_dict().keys() == plain.state_dict().keys()
    assert not hasattr(folded, "peft_config")


def test_a_copy_can_be_folded_while_the_model_goes_on_learning(base: Path, spec: TrainSpec) -> None:
    model, adaptation = started(base, spec, LoRA(rank=4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adaptation.finish(copy.deepcopy(model))
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in before.items())
    assert any(parameter.requires_grad for parameter in model.parameters())


def test_only_adapters_learn(base: Path, spec: TrainSpec) -> None:
    model, adaptation = started(base, spec, LoRA(rank=4))
    learns = {name: parameter.numel() for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(".lora_A." in name or ".lora_B." in name for name in learns)
    layers = 3 * 3  # gate, up and down of three layers: 128 -> 320 or back; the projector's two: 96 -> 128 -> 128
    assert adaptation.trained == {
        "language_model.mlp (LoRA on 9 linear layers, all else frozen)": layers * 4 * (128 + 320),
        "projector (LoRA on 2 linear layers, all else frozen)": 4 * (96 + 128) + 4 * (128 + 128),
    }
    assert sum(adaptation.trained.values()) == sum(learns.values())
    assert LoRA().memory(1000, 100) == 400


@pytest.mark.parametrize("bfloat16", [False, True])
def test_all_that_is_not_targeted_keeps_its_bytes_and_the_rest_is_rounded_once(
    base: Path, stage: Stage, tmp_path: Path, bfloat16: bool
) -> None:
    start = in_bfloat16(base, tmp_path / "start") if bfloat16 else base
    stage("tuned", start=start, parts=MLP, max_steps=2, strategy=LoRA(rank=8, keep_adapter=True))
    before, after = load_file(start / WEIGHTS), load_file(tmp_path / "tuned" / WEIGHTS)
    adapter = load_file(tmp_path / "tuned" / "adapter" / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        if name.startswith("language_model.") and ".mlp." in name:
            layer = name.replace("language_model.model.", "base_model.model.model.language_model.").removesuffix(".weight")
            addition = 16 / 8 * (adapter[f"{layer}.lora_B.weight"] @ adapter[f"{layer}.lora_A.weight"])
            assert torch.equal(after[name], (tensor.float() + addition).to(tensor.dtype)), name
            assert not torch.equal(after[name], tensor), name
        else:
            assert torch.equal(after[name], tensor), name


def test_a_kept_adapter_is_one_for_peft(base: Path, stage: Stage, tmp_path: Path) -> None:
    stage("tuned", max_steps=2, strategy=LoRA(rank=8, keep_adapter=True))
    adapted = PeftModel.from_pretrained(load_model(base), tmp_path / "tuned" / "adapter")
    torch.testing.assert_close(logits(adapted), logits(load_model(tmp_path / "tuned")), rtol=0, atol=2e-5)  # float32 rounding
    settings = json.loads((tmp_path / "tuned" / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["base_model_name_or_path"]) == (8, 16, None)
    assert settings["target_modules"] == sorted(settings["target_modules"])
    stage("bare", max_steps=2, strategy=LoRA(rank=8))
    assert directory_manifest(tmp_path / "bare") == {
        name: digest for name, digest in directory_manifest(tmp_path / "tuned").items() if not name.startswith("adapter/")
    }


def test_adapters_depend_on_seed_and_layer_alone(base: Path, spec: TrainSpec) -> None:
    def downs(seed: int) -> list[torch.Tensor]:
        model, _ = started(base, spec, LoRA(rank=8), seed=seed)
        return [parameter for name, parameter in model.named_parameters() if "lora_A" in name]

    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = downs(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(7)
    assert all(map(torch.equal, first, downs(1)))
    assert not any(map(torch.equal, first, downs(2)))
    assert not torch.equal(first[0], first[1])
    bound = 1 / 96**0.5  # Kaiming's for a = sqrt(5): 1 / sqrt(inputs), of the projector's first layer
    assert bound * 0.95 < first[0].abs().max().item() <= bound


class CrashError(Exception):
    """Thrown in the middle of a stage."""


class Crash(TrainerCallback):
    """Throws after step 5."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Throw where it is time."""
        if state.global_step == 5:
            raise CrashError


@dataclass(frozen=True)
class Crashing(LoRA):
    """LoRA that crashes, or not, which is no part of what the stage is."""

    crash: bool = field(default=False, repr=False)

    def start(self, model: Any, context: Context) -> Adaptation:
        """As LoRA does."""
        adaptation = super().start(model, context)
        return replace(adaptation, callbacks=(Crash(),)) if self.crash else adaptation


def test_a_crashed_stage_ends_as_if_undisturbed(stage: Stage, tmp_path: Path) -> None:
    """With dropout, so that the random state too has to come back."""
    undisturbed = stage("whole", strategy=Crashing(rank=8, dropout=0.2, keep_adapter=True))
    with pytest.raises(CrashError):
        stage("parts", strategy=Crashing(rank=8, dropout=0.2, keep_adapter=True, crash=True))
    held = load_file(tmp_path / "parts-work" / "checkpoint-4" / WEIGHTS)
    assert {name for name in held if "lora_" not in name} == set()
    resumed = stage("parts", strategy=Crashing(rank=8, dropout=0.2, keep_adapter=True))
    assert (resumed.resumed_from_step, resumed.loss) == (4, undisturbed.loss)
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "parts")


def test_a_part_without_linear_layers_is_refused(base: Path, spec: TrainSpec) -> None:
    with pytest.raises(InputError, match=r"part 'regex:.*layernorm.*' of LlavaForConditionalGeneration has no linear layer"):
        started(base, spec, LoRA(), parts=(*MLP, "regex:.*layernorm.*"))


def test_a_tied_head_is_no_layer_of_its_own() -> None:
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    free, tied = (LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=tie)) for tie in (False, True))
    assert set(linear_layers(free, "language_model")) - set(linear_layers(tied, "language_model")) == {"lm_head"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 0}, "rank is 0; give 1 or more"),
        ({"alpha": 0.0}, "alpha is 0.0; give a positive number"),
        ({"alpha": float("inf")}, "alpha is inf"),
        ({"dropout": 1.0}, "dropout is 1.0; give 0 to below 1"),
        ({"dropout": -0.1, "rank": -1}, "rank is -1; give 1 or more; dropout is -0.1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LoRA(**settings)
