"""Layer contributions: the Gram formula against full logits in float64, and whole models against a plain reading of their layers."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evaluators.analysis.layer_contributions import Grams, contributions, decoder_layers, gram, layer_contributions
from evaluators.analysis.teacher_forcing import encode_answered
from evaluators.generate import Answerer
from foundation.errors import InputError
from models.digits_llava import digits_llava, digits_processor
from models.prompts import conversation_text, question_text
from tasks.digits import all_texts
from tasks.registry import get_task
from tasks.task import Example, Role, Split, Turn

EXAMPLES = [*get_task("describe").examples(Split.TEST, 3), *get_task("name").examples(Split.TEST, 2)]
ROUNDING = 1e-4
"""Float32 activations, batched with padding against one at a time; their differences lose a digit or two."""


def unembedding_grams(tuned: Tensor, base: Tensor, rows: int) -> Grams:
    return Grams(gram(tuned, tuned, rows), gram(base, base, rows), gram(tuned, base, rows), equal=False)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), vocabulary=st.integers(1, 40), hidden=st.integers(1, 12), rows=st.integers(1, 50))
def test_the_gram_formula_is_the_distance_of_full_logits(seed, vocabulary, hidden, rows) -> None:
    draw = torch.Generator().manual_seed(seed)
    tuned, base = (torch.randn(vocabulary, hidden, generator=draw) for _ in range(2))
    after, before = (torch.randn(5, hidden, generator=draw) for _ in range(2))
    naive = (after.double() @ tuned.double().T - before.double() @ base.double().T).norm(dim=1)
    found = unembedding_grams(tuned, base, rows).distance(after, before)
    # float64 sums that cancel: the root of the rounding, 1e-16, of squares up to some hundreds
    torch.testing.assert_close(found, naive, rtol=1e-9, atol=1e-6)
    own, apart = gram(base, base, rows), after.double() - before.double()
    same_head = Grams(own, own, own, equal=True).distance(after, before)
    torch.testing.assert_close(same_head, (apart @ base.double().T).norm(dim=1), rtol=1e-9, atol=1e-6)


def changed(model: Any, seed: int, head: bool) -> Any:
    """The model with a little noise on its decoder, and on its head or not."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "language_model" in name or (head and "lm_head" in name):
                parameter += 0.02 * torch.randn(parameter.shape, generator=draw)
    return model.eval()


def answerer_of(model: Any) -> Answerer:
    return Answerer(model, digits_processor(all_texts()), torch.device("cpu"))


def naive_contributions(answerer: Answerer, example: Example) -> tuple[list[Tensor], list[Tensor]]:
    """What attention and MLP add in each layer at the answer's tokens: differences of the residual stream around the second norm."""
    processor, decoder = answerer.processor, answerer.model.model.language_model
    whole = conversation_text(processor, 1, example.question, example.answer)
    inputs = processor(text=whole, images=example.images[0], return_tensors="pt")
    prompt = processor(text=question_text(processor, 1, example.question), images=example.images[0], return_tensors="pt")
    learned = slice(prompt["input_ids"].shape[1], None)
    middles: list[Tensor] = []
    handles = [
        norm.register_forward_pre_hook(lambda _, given: middles.append(given[0]))
        for norm in [*(layer.post_attention_layernorm for layer in decoder.layers), decoder.norm]
    ]
    with torch.no_grad():
        states = answerer.model(**inputs, output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    ends = [*states[1:-1], middles.pop()]
    attention = [(middle - start)[0, learned] for middle, start in zip(middles, states, strict=False)]
    return attention, [(end - middle)[0, learned] for end, middle in zip(ends, middles, strict=True)]


def naive_curves(base: Answerer, tuned: Answerer) -> np.ndarray:
    """[2, layers]: full logits in float64, mean over an answer's tokens, then over the samples."""
    heads = [each.model.lm_head.weight.detach().double() for each in (tuned, base)]
    found = []
    for example in EXAMPLES:
        after, before = (naive_contributions(each, example) for each in (tuned, base))
        found.append(
            [
                [float((t.double() @ heads[0].T - b.double() @ heads[1].T).norm(dim=1).mean()) for t, b in zip(mine, theirs, strict=True)]
                for mine, theirs in zip(after, before, strict=True)
            ]
        )
    return np.mean(found, axis=0)


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_curves_equal_the_naive_ones(head, batch_size) -> None:
    base, tuned = answerer_of(digits_llava(0)), answerer_of(changed(digits_llava(0), 1, head))
    heard: list[int] = []
    found = layer_contributions(base, tuned, EXAMPLES, batch_size, heard.append)
    expected = naive_curves(base, tuned)
    np.testing.assert_allclose([found.attention, found.mlp], expected, rtol=ROUNDING)
    assert expected.min() > 10 * ROUNDING
    assert found.samples == heard[-1] == len(EXAMPLES)
    assert found.as_json()["mlp"] == list(found.mlp)
    processor = base.processor
    lengths = [len(processor.tokenizer(each.answer)["input_ids"]) + 1 for each in EXAMPLES]
    assert found.tokens == sum(lengths), "the answer and the token that ends it"


def test_a_model_is_at_distance_zero_of_itself_and_an_untouched_part_is_too() -> None:
    base = answerer_of(digits_llava(0))
    same = layer_contributions(base, answerer_of(digits_llava(0)), EXAMPLES, 2)
    assert {*same.attention, *same.mlp} == {0.0}
    last = digits_llava(0)
    with torch.no_grad():
        last.model.language_model.layers[-1].mlp.down_proj.weight += 0.1
    found = layer_contributions(base, answerer_of(last), EXAMPLES, 2)
    assert {*found.attention, *found.mlp[:-1]} == {0.0}
    assert found.mlp[-1] > 0


@pytest.fixture(scope="module")
def families() -> dict[str, Callable[[], Any]]:
    """The tiny models that the tests of `models` are made of."""
    import tiny_models

    tied = {"llama": lambda: tiny_models.tiny_llama(tie_word_embeddings=True)}
    return {"qwen2_vl": tiny_models.tiny_qwen2_vl, "idefics3": tiny_models.tiny_idefics3, **tied}


@pytest.mark.parametrize("family", ["qwen2_vl", "idefics3", "llama"])
def test_the_layers_of_every_family(families, family) -> None:
    torch.manual_seed(0)
    model = families[family]().eval()
    answerer = Answerer(model, None, torch.device("cpu"))
    inputs = {"input_ids": torch.arange(4, 12).view(2, 4), "attention_mask": torch.ones(2, 4, dtype=torch.long)}
    chosen = torch.tensor([[False, False, True, True], [False, False, False, True]])
    found = contributions(answerer, inputs, chosen)
    assert [part.shape for part in (*found["attention"], *found["mlp"])] == [(3, 32)] * 4
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    residual = (states[1] - states[0])[chosen]
    torch.testing.assert_close(found["attention"][0] + found["mlp"][0], residual, rtol=1e-4, atol=1e-6)
    assert not decoder_layers(model)[0].mlp._forward_hooks


def test_the_answer_is_marked_behind_its_prompt() -> None:
    processor = digits_processor(all_texts())
    batch, answers = encode_answered(processor, EXAMPLES)
    for row, example in enumerate(EXAMPLES):
        text = processor.tokenizer.decode(batch["input_ids"][row][answers[row]])
        assert text.replace(" ", "") == example.answer.replace(" ", "") + "<eos>"


def test_of_several_turns_the_last_answer_is_marked() -> None:
    processor = digits_processor(all_texts())
    before = (Turn(Role.USER, "Where is the digit?"), Turn(Role.ASSISTANT, "top left"))
    example = replace(EXAMPLES[-1], before=before)
    batch, answers = encode_answered(processor, [example])
    assert "top left" in processor.tokenizer.decode(batch["input_ids"][0])
    assert processor.tokenizer.decode(batch["input_ids"][answers]).strip() == f"{example.answer}<eos>"


def test_refusals() -> None:
    base = answerer_of(digits_llava(0))
    with pytest.raises(InputError, match="0 examples"):
        layer_contributions(base, base, [])
    shallow = digits_llava(0)
    shallow.model.language_model.layers = shallow.model.language_model.layers[:2]
    with pytest.raises(InputError, match="has 2 decoder layers and the base 3"):
        layer_contributions(base, answerer_of(shallow), EXAMPLES)
    wide = digits_llava(0)
    wide.resize_token_embeddings(430)
    with pytest.raises(InputError, match=r"head is \[430, 128\] and the base's \[424, 128\]"):
        layer_contributions(base, answerer_of(wide), EXAMPLES)
    other = Answerer(digits_llava(0), digits_processor(["entirely other words", "even", "odd"]), torch.device("cpu"))
    with pytest.raises(InputError, match=r"make different tokens of example .*describe/test/0/0"):
        layer_contributions(base, other, EXAMPLES)
    bare = digits_llava(0)
    del bare.model.language_model.layers[0].mlp
    with pytest.raises(InputError, match="decoder layer 0 of LlavaForConditionalGeneration has no 'mlp'"):
        decoder_layers(bare)
