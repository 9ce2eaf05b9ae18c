"""Routed models: what they compute, and that they come back from disk as they were."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from foundation.errors import InputError
from models.experts import (
    SETTINGS_FILE,
    WEIGHTS_FILE,
    NewRouter,
    add_experts,
    decoder_mlps,
    expert_weights,
    routed_mlps,
)
from models.load import load_model, save_checkpoint

IDS = torch.tensor([[5, 9, 12, 7, 30], [8, 8, 21, 6, 11]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def routed(model: Any, top_k: int = 2, shaken: bool = True) -> Any:
    """`model` with experts; `shaken` gives every expert and router weights of its own, as training would."""
    mlps = add_experts(model, top_k, NewRouter(seed=3, bias=0.25))
    if shaken:
        with torch.no_grad():
            for mlp in mlps.values():
                for parameter in [*mlp.tuned.parameters(), *mlp.router.parameters()]:
                    parameter.add_(torch.randn(parameter.shape).to(parameter.dtype) * 0.1)
    return model


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "idefics3", "llama"])
@pytest.mark.parametrize("top_k", [1, 2])
def test_while_the_experts_are_equal_nothing_changes(tiny: dict[str, Callable[[], Any]], family: str, top_k: int) -> None:
    """With one expert to the bit; with two, w y + (1 - w) y rounds a few times per layer in float32."""
    model = tiny[family]().eval()
    before = logits(model)
    assert len(add_experts(model, top_k, NewRouter(seed=0))) == len(decoder_mlps(model)) > 1
    assert not any(parameter.isnan().any() for parameter in model.parameters())
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0 if top_k == 1 else 1e-5)


@given(st.lists(st.tuples(*[st.floats(-50, 50, width=32)] * 2), min_size=1, max_size=8), st.sampled_from([1, 2]))
def test_a_token_s_weights_are_a_softmax_over_the_chosen(scores: list[tuple[float, float]], top_k: int) -> None:
    given_scores = torch.tensor(scores)
    weights = expert_weights(given_scores, top_k)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(len(scores)), rtol=0, atol=1e-6)  # float32 rounding
    naive = given_scores.double().exp() / given_scores.double().exp().sum(dim=-1, keepdim=True)
    if top_k == 1:
        naive = torch.tensor([[1.0, 0.0] if original >= tuned else [0.0, 1.0] for original, tuned in scores], dtype=torch.float64)
    torch.testing.assert_close(weights.double(), naive, rtol=1e-5, atol=1e-12)


def test_the_output_is_the_weighed_sum(tiny: dict[str, Callable[[], Any]]) -> None:
    mlp = routed_mlps(routed(tiny["llama"]()))[1]
    inputs = torch.randn(2, 3, 32)
    with torch.no_grad():
        weight = mlp.router(inputs).softmax(dim=-1)[..., 1:]
        expected = (1 - weight) * mlp.original(inputs) + weight * mlp.tuned(inputs)
        torch.testing.assert_close(mlp(inputs), expected, rtol=0, atol=1e-6)  # float32, in another order


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_routed_model_comes_back_as_it_was(checkpoint: Path, processor: Any, tmp_path: Path, top_k: int, dtype: torch.dtype) -> None:
    model = routed(load_model(checkpoint, dtype), top_k)
    save_checkpoint(model, processor, tmp_path / "routed")
    again = load_model(tmp_path / "routed")
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(before[name].dtype == after[name].dtype and torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(logits(model), logits(again))
    assert {mlp.top_k for mlp in routed_mlps(again).values()} == {top_k}
    assert not again.training
    assert not any(mlp.training for mlp in routed_mlps(again).values())


def test_without_its_experts_a_routed_checkpoint_is_the_original(checkpoint: Path, processor: Any, tmp_path: Path) -> None:
    original = load_model(checkpoint)
    save_checkpoint(routed(load_model(checkpoint)), processor, tmp_path / "routed")
    plain = type(original).from_pretrained(tmp_path / "routed")
    assert torch.equal(logits(plain), logits(original))
    assert (tmp_path / "routed/model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert not torch.equal(logits(load_model(tmp_path / "routed")), logits(original))
    assert json.loads((tmp_path / "routed" / SETTINGS_FILE).read_text()) == {"format": 1, "layers": [0, 1, 2], "top_k": 2}


def test_new_routers_depend_on_seed_and_layer_alone(tiny: dict[str, Callable[[], Any]]) -> None:
    def routers(seed: int) -> list[torch.Tensor]:
        return [mlp.router.weight for mlp in add_experts(tiny["llava"](), 2, NewRouter(seed, 0.5)).values()]

    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = routers(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(7)
    assert all(map(torch.equal, first, routers(1)))
    assert not any(map(torch.equal, first, routers(2)))
    assert not torch.equal(first[0], first[1])
    assert torch.cat(first).std().item() == pytest.approx(0.02, rel=0.1)  # 768 draws: 2.6 % of standard error
    assert add_experts(tiny["llava"](), 2, NewRouter(1, 0.5))[0].router.bias.tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("top_k", [1, 2])
def test_generating_with_a_cache_gives_the_same_answers(tiny: dict[str, Callable[[], Any]], top_k: int) -> None:
    model = routed(tiny["llava"](), top_k).eval()
    options = {"input_ids": IDS, "max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    cached, whole = (model.generate(**options, use_cache=cache) for cache in (True, False))
    assert torch.equal(cached, whole)
    assert cached.shape == (2, 11)


def test_every_output_depends_on_the_routers(tiny: dict[str, Callable[[], Any]]) -> None:
    """Else DDP would hold a router that only the auxiliary loss reaches for one that nothing reaches, and fail."""
    model = routed(tiny["llama"](), top_k=1).train()
    model(input_ids=IDS).logits.sum().backward()
    assert all(not mlp.router.weight.grad.any() for mlp in routed_mlps(model).values())


def test_a_model_can_be_copied_in_the_middle_of_a_step(tiny: dict[str, Callable[[], Any]]) -> None:
    model = routed(tiny["llama"]()).train()
    model(input_ids=IDS)
    twin = copy.deepcopy(model)
    assert all(mlp.scores is not None for mlp in routed_mlps(model).values())
    assert all(mlp.scores is None for mlp in routed_mlps(twin).values())


def rewritten(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path: Path) -> None:
    tensors = load_file(path)
    tensors["layers.1.mlp.router.bias"] = torch.zeros(3)
    save_file(tensors, path)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "lost weights": (lambda routed: (routed / WEIGHTS_FILE).unlink(), "experts.safetensors cannot be read"),
    "lost settings": (lambda routed: (routed / SETTINGS_FILE).unlink(), "experts.json cannot be read as the settings"),
    "half the weights": (lambda routed: (routed / WEIGHTS_FILE).write_bytes(b"x" * 99), "experts.safetensors cannot be read"),
    "no top_k": (lambda routed: (routed / SETTINGS_FILE).write_text('{"format": 1}'), "experts.json cannot be read as the settings"),
    "a later format": (lambda routed: rewritten(routed / SETTINGS_FILE, format=2), "format 2 is not 1"),
    "a third expert": (lambda routed: rewritten(routed / SETTINGS_FILE, top_k=3), "top_k is 3"),
    "other layers": (lambda routed: rewritten(routed / SETTINGS_FILE, layers=[0, 2]), "layers 0, 2, the model has MLPs in layers 0 to 2"),
    "another shape": (lambda routed: cut(routed / WEIGHTS_FILE), r"'layers.1.mlp.router.bias' is \[3\], the model needs \[2\]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_experts_that_do_not_fit_are_refused(checkpoint: Path, processor: Any, tmp_path: Path, damage: str) -> None:
    save_checkpoint(routed(load_model(checkpoint)), processor, tmp_path / "routed")
    act, said = DAMAGE[damage]
    act(tmp_path / "routed")
    with pytest.raises(InputError, match=said):
        load_model(tmp_path / "routed")
