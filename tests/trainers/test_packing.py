"""Packing changes the room that examples take and nothing else: the same loss, the same gradients."""

from typing import Any

import pytest
import torch
from chat_templates import text_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from foundation.errors import InputError
from models.digits_llava import digits_llava
from tasks.task import Example, Role, Turn
from trainers.data.collate import AnswerCollator
from trainers.data.packing import IGNORED, first_fit, pack, refuse_unpackable

TALKS = [Example(f"talk-{words}", (), "Which digit is shown? " * words, "It is three. " * (7 - words)) for words in range(1, 7)]
TALKS += [Example("turns", (), "And the color of it?", "Purple.", (Turn(Role.USER, "Which?"), Turn(Role.ASSISTANT, "Three.")))]
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "initializer_range": 0.3,  # so that attention is far from uniform and what is seen makes a difference
}  # fmt: skip
MODELS = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}


def tiny(kind: str, vocabulary: int, attention: str) -> Any:
    torch.manual_seed(0)
    config, model = MODELS[kind]
    return model._from_config(config(vocab_size=vocabulary, use_cache=False, **SIZES), attn_implementation=attention)


def learn(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The mean loss over the answers' tokens, and every gradient."""
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", MODELS)
def test_loss_and_gradients_are_those_without_packing(kind: str, attention: str) -> None:
    tokenizer = text_tokenizer("bytes", "chatml")
    model = tiny(kind, len(tokenizer), attention)
    indices = range(len(TALKS))
    plain = AnswerCollator(TALKS, tokenizer)(indices)
    packed = AnswerCollator(TALKS, tokenizer, max_length=int(plain["input_ids"].shape[1]) + 60, packing=True)(indices)
    assert len(packed["input_ids"]) < len(TALKS)
    assert (packed["labels"] != IGNORED).sum() == (plain["labels"] != IGNORED).sum()
    loss, gradients = learn(model, plain)
    packed_loss, packed_gradients = learn(model, packed)
    assert float(packed_loss) == pytest.approx(float(loss), rel=1e-5)  # other summation orders in float32
    for name, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[name], gradient, rtol=1e-3, atol=1e-6 + 1e-5 * float(gradient.abs().max()))
    leaking = packed | {"position_ids": torch.arange(packed["input_ids"].shape[1])[None].expand_as(packed["input_ids"])}
    assert abs(float(learn(model, leaking)[0] - loss)) > 1e-4 * float(loss)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(20, 60))
def test_every_example_has_its_place(lengths: list[int], room: int) -> None:
    rows = first_fit(lengths, room)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= room for row in rows)
    assert len(rows) <= 1 + 2 * sum(lengths) // room  # no two rows would fit into one


def test_positions_start_again_and_filling_carries_no_loss() -> None:
    rows = [{"input_ids": torch.arange(n) + 10, "labels": torch.arange(n) + 10, "attention_mask": torch.ones(n)} for n in (3, 2, 4)]
    batch = pack(rows, fill=7, max_length=6)
    assert batch["input_ids"].tolist() == [[10, 11, 12, 13, 10, 11], [10, 11, 12, 7, 7, 7]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1], [0, 1, 2, 0, 1, 2]]
    assert batch["labels"].tolist() == [[IGNORED, 11, 12, 13, IGNORED, 11], [IGNORED, 11, 12, *[IGNORED] * 3]]


def test_models_that_cannot_are_refused_by_name() -> None:
    for kind in MODELS:
        refuse_unpackable(tiny(kind, 50, "sdpa"))
    with pytest.raises(InputError, match=r"text alone, not LlavaForConditionalGeneration \(llava\)"):
        refuse_unpackable(digits_llava(seed=0))
    torch.manual_seed(0)
    recurrent = MambaForCausalLM(MambaConfig(vocab_size=50, hidden_size=16, state_size=4, num_hidden_layers=2))
    with pytest.raises(InputError, match=r"MambaForCausalLM \(mamba\)"):
        refuse_unpackable(recurrent)
    with pytest.raises(InputError, match="also give pixel_values"):
        pack([{"input_ids": torch.ones(2), "pixel_values": torch.ones(1)}], 0, None)
