"""The optimizer's groups: every trained parameter once, rates by part, no weight decay for biases, norms and scales."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from foundation.errors import InputError
from models.digits_llava import digits_llava
from models.parts import parameters_of, set_trainable
from trainers.parameter_groups import parameter_groups
from trainers.spec import TrainSpec

WHOLE = TrainSpec(parts=("language_model", "projector", "vision_tower"), learning_rate=1e-3, weight_decay=0.1)


@pytest.fixture(scope="module")
def model() -> Any:
    return digits_llava(seed=0)


def named(model: Any, groups: list[dict[str, Any]]) -> Mapping[str, list[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {group["name"]: [names[id(parameter)] for parameter in group["params"]] for group in groups}


def test_without_rates_there_are_two_groups(model: Any) -> None:
    set_trainable(model, WHOLE.parts)
    groups = parameter_groups(model, WHOLE)
    assert [(group["name"], group["lr"], group["weight_decay"]) for group in groups] == [
        ("rest, decay", 1e-3, 0.1),
        ("rest, no decay", 1e-3, 0.0),
    ]
    found = named(model, groups)
    names = [name for name, _ in model.named_parameters()]
    exempt = [name for name in names if name.endswith(".bias") or "norm" in name]
    assert found["rest, no decay"] == exempt  # in the model's order
    assert found["rest, decay"] == [name for name in names if name not in exempt]
    assert "model.language_model.embed_tokens.weight" in found["rest, decay"]
    assert any(name.endswith("layers.0.input_layernorm.weight") for name in exempt)  # an RMSNorm
    assert any(".layer_norm1.weight" in name for name in exempt)


def test_parts_learn_at_rates_of_their_own(model: Any) -> None:
    set_trainable(model, WHOLE.parts)
    spec = replace(WHOLE, learning_rates=(("vision_tower", 2e-6), ("language_model.mlp_down", 5e-5)))
    groups = parameter_groups(model, spec)
    rates = {name: group["lr"] for group in groups for name in named(model, [group])[group["name"]]}
    for part, rate in (
        (("projector"), 1e-3),
        ("vision_tower", 2e-6),
        ("language_model.mlp_down", 5e-5),
        ("language_model.attention", 1e-3),
    ):
        assert {rates[name] for name in parameters_of(model, part)} == {rate}
    assert [group["name"] for group in groups] == [
        "rest, decay",
        "rest, no decay",
        "vision_tower, decay",
        "vision_tower, no decay",
        "language_model.mlp_down, decay",  # has no biases: no empty group
    ]


@given(
    parts=st.sets(st.sampled_from(["vision_tower.mlp", "vision_tower.attention", "projector", "language_model.mlp"]), min_size=1),
    rated=st.sets(st.sampled_from(["vision_tower", "projector", "language_model"])),
)
def test_every_trained_parameter_is_in_one_group(model: Any, parts: set[str], rated: set[str]) -> None:
    set_trainable(model, sorted(parts))
    spec = replace(WHOLE, parts=tuple(sorted(parts)), learning_rates=tuple((part, 1e-4) for part in sorted(rated)))
    if any(not any(part.startswith(one) for part in parts) for one in rated):
        with pytest.raises(InputError, match=r"none of its \d+ parameters is trained"):
            parameter_groups(model, spec)
        return
    grouped = [id(parameter) for group in parameter_groups(model, spec) for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ([("projector", 1e-4), ("regex:.*linear_1.*", 1e-5)], "'projector' and 'regex:.*linear_1.*' have 2 parameters"),
        (
            [("vision_tower", 1e-4)],
            r"'vision_tower' has a learning rate of its own, but none of its 37 parameters is trained \(trained: projector\)",
        ),
        ([("resampler", 1e-4)], "has no resampler"),
    ],
)
def test_rates_that_cannot_be_honoured_are_refused(model: Any, rates: list[tuple[str, float]], said: str) -> None:
    set_trainable(model, ["projector"])
    with pytest.raises(InputError, match=said.replace(".*", r"\.\*") if "regex" in said else said):
        parameter_groups(model, replace(WHOLE, parts=("projector",), learning_rates=tuple(rates)))


def test_nothing_to_train_is_refused(model: Any) -> None:
    model.requires_grad_(False)
    with pytest.raises(InputError, match="no parameter that is trained"):
        parameter_groups(model, WHOLE)


def test_adapters_learn_at_the_rate_of_what_they_adapt() -> None:
    wrapped = get_peft_model(digits_llava(seed=0), LoraConfig(r=2, target_modules=r".*language_model.*\.(gate_proj|q_proj)"))
    spec = replace(WHOLE, parts=("language_model",), learning_rates=(("language_model.mlp", 5e-5),))
    found = named(wrapped, parameter_groups(wrapped, spec))
    assert set(found) == {"rest, decay", "language_model.mlp, decay"}
    assert all(".gate_proj.lora_" in name for name in found["language_model.mlp, decay"])
    assert all(".q_proj.lora_" in name for name in found["rest, decay"])
    assert len(found["language_model.mlp, decay"]) == 6  # A and B in each of 3 layers


def test_layer_scales_and_odd_norms_do_not_decay() -> None:
    class ScaledRMSNorm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(torch.zeros(2, 2))

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)
            self.gamma_1 = torch.nn.Parameter(torch.ones(2))
            self.expert_bias = torch.nn.Parameter(torch.ones(2, 2))
            self.middle = ScaledRMSNorm()
            self.groups = torch.nn.GroupNorm(1, 2)

    block = Block()
    found = named(block, parameter_groups(block, replace(WHOLE, parts=("language_model",))))
    assert found["rest, decay"] == ["linear.weight"]


def test_one_step_moves_parts_at_their_rates(model: Any) -> None:
    """AdamW's first step is `lr` along the gradient's sign, so the rates can be read off; what decays shrinks by lr * decay first."""
    set_trainable(model, WHOLE.parts)
    spec = replace(WHOLE, learning_rates=(("projector", 1e-2),))
    optimizer = torch.optim.AdamW(parameter_groups(model, spec), lr=1.0, eps=1e-12)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    rates = {"model.multi_modal_projector.linear_1.weight": (1e-2, 0.1), "model.multi_modal_projector.linear_1.bias": (1e-2, 0.0)}
    for name, (rate, decay) in {**rates, "model.language_model.norm.weight": (1e-3, 0.0)}.items():
        after = dict(model.named_parameters())[name]
        torch.testing.assert_close(after, before[name] * (1 - rate * decay) - rate, rtol=1e-5, atol=1e-7)  # float32 rounding
