"""Log-likelihoods of choices against a loop in float64 that asks one choice at a time, without cache and padding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from asked_tasks import CHOICES, Graded, shouting_model
from tiny_models import QWEN_TEXT, QWEN_TOWER, TINY
from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

from evaluators import likelihood
from evaluators.evaluate import evaluate
from evaluators.generate import Answerer, encode, load_answerer
from evaluators.likelihood import choices_of, likeliest, log_likelihoods
from evaluators.questions import batches_of
from evaluators.scores import read_samples
from evaluators.suite import Suite
from foundation.errors import InputError
from models.load import load_model, load_processor
from models.prompts import question_text
from tasks.task import Answering, Example, Split

TASK = Graded("cell", Answering.LIKELIHOOD)
SAMPLES = 9
CLOSE = 1e-4
"""Sums of up to 12 log-probabilities of about -10, each with float32's 1e-7 after a dozen layers of products."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shouting_model(tmp_path_factory.mktemp("checkpoint"))


def naive(checkpoint: Path, examples: list[Example]) -> list[list[float]]:
    """Token by token, each time the whole text with its image through the model in float64."""
    model, processor = load_model(checkpoint, torch.float64), load_processor(checkpoint)
    found = []
    for example in examples:
        prompt = question_text(processor, 1, example.question)
        before = processor(text=prompt, images=example.images[0], return_tensors="pt")
        sums = []
        for choice in example.choices:
            whole = processor(text=prompt + choice, images=example.images[0], return_tensors="pt")
            start = before["input_ids"].shape[1]
            total = 0.0
            for place in range(start, whole["input_ids"].shape[1]):
                with torch.no_grad():
                    ids = whole["input_ids"][:, :place]
                    logits = model(input_ids=ids, pixel_values=whole["pixel_values"].double()).logits[0, -1]
                total += float(logits.log_softmax(-1)[whole["input_ids"][0, place]])
            sums.append(total)
        found.append(sums)
    return found


def test_equal_to_the_naive_loop(checkpoint) -> None:
    examples = list(TASK.examples(Split.TEST, SAMPLES))
    expected = naive(checkpoint, examples)
    answerer = load_answerer(checkpoint)
    prompts = [question_text(answerer.processor, 1, example.question) for example in examples]
    assert len(set(map(len, prompts))) > 1, "prompts of several lengths, else padding is not tested"
    lengths = {len(tokens) for example, prompt in zip(examples, prompts, strict=True) for tokens in choices_of(answerer, example, prompt)}
    assert 1 in lengths
    assert max(lengths) > 3
    found = log_likelihoods(answerer, encode(answerer, examples, prompts), examples, prompts)
    assert [len(each) for each in found] == [len(example.choices) for example in examples]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=CLOSE)
    chosen = likeliest(answerer, encode(answerer, examples, prompts), examples, prompts)
    assert chosen == [example.choices[each.index(max(each))] for example, each in zip(examples, expected, strict=True)]
    assert len(set(chosen)) > 1


@pytest.mark.parametrize("family", ["llama", "qwen3", "qwen2_vl", "internvl", "idefics3"])
def test_families(family: str) -> None:
    """Padded on the left, several choices one after another from one cache, the end-of-text token within a choice."""
    torch.manual_seed(0)
    model = TINY[family]().eval()
    model.generation_config = GenerationConfig(do_sample=False, num_beams=1, eos_token_id=[7], pad_token_id=7)
    ids = torch.randint(8, 40, (3, 9))
    lengths = [6, 8, 9]
    mask = torch.stack([(torch.arange(9) >= 9 - length).long() for length in lengths])
    choices = [[(9, 10, 11), (12,)], [(13,), (14, 7, 15, 16), (9,)], [(20, 7)]]
    found = weigh(model, {"input_ids": ids, "attention_mask": mask}, choices)
    model = model.double()
    for row, weights in enumerate(found):
        expected = [alone(model, ids[row, -lengths[row] :], choice) for choice in choices[row]]
        assert weights == pytest.approx(expected, abs=CLOSE)


def test_images_on_a_grid() -> None:
    """Places in three dimensions go on after the prompt as the model itself counts them, for prompts of several shapes at once."""
    torch.manual_seed(0)
    tokens = {"image_token_id": 3, "vision_start_token_id": 4, "vision_end_token_id": 5, "video_token_id": 6}
    tower = {**QWEN_TOWER, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    model = AutoModelForImageTextToText.from_config(AutoConfig.for_model("qwen2_vl", text_config=QWEN_TEXT, vision_config=tower, **tokens))
    model = model.eval()
    model.generation_config = GenerationConfig(do_sample=False, num_beams=1, eos_token_id=[7], pad_token_id=0)
    grids = [(1, 4, 6), (1, 2, 4), (1, 8, 2)]
    pixels = [torch.randn(high * wide, 3 * 2 * 4**2) for _, high, wide in grids]
    rows = [[4, *[3] * (high * wide // 4), 5, *range(9, 12 + place)] for place, (_, high, wide) in enumerate(grids)]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    shown = {"pixel_values": torch.cat(pixels), "image_grid_thw": torch.tensor(grids), "mm_token_type_ids": (ids == 3).long()}
    choices = ((20, 21, 22), (23,))
    found = weigh(model, {"input_ids": ids, "attention_mask": (ids > 0).long(), **shown}, [choices] * 3)
    model = model.double()
    for row, pixel, grid, weights in zip(rows, pixels, grids, found, strict=True):
        expected = []
        for choice in choices:
            whole = torch.tensor([[*row, *choice]])
            more = {"image_grid_thw": torch.tensor([grid]), "mm_token_type_ids": (whole == 3).long()}
            with torch.no_grad():
                logits = model(input_ids=whole, pixel_values=pixel.double(), **more).logits[0].log_softmax(-1)
            expected.append(sum(float(logits[len(row) - 1 + place, token]) for place, token in enumerate(choice)))
        assert weights == pytest.approx(expected, abs=CLOSE)


def weigh(model: Any, inputs: dict[str, torch.Tensor], choices: Sequence[Sequence[tuple[int, ...]]]) -> list[list[float]]:
    """The log-likelihoods of choices that are tokens already."""
    examples = [Example(str(place), (), "", "") for place in range(len(choices))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "choices_of", lambda answerer, example, prompt: list(choices[int(example.key)]))
        return log_likelihoods(Answerer(model, None, torch.device("cpu")), inputs, examples, [""] * len(choices))


def alone(model: Any, prompt: torch.Tensor, choice: tuple[int, ...]) -> float:
    whole = torch.cat([prompt, torch.tensor(choice)])[None]
    with torch.no_grad():
        logits = model(input_ids=whole, attention_mask=torch.ones_like(whole)).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(choice))


def test_ties_go_to_the_first_and_images_are_read_once(checkpoint) -> None:
    answerer = load_answerer(checkpoint)
    seen: list[int] = []
    answerer.model.model.vision_tower.register_forward_hook(lambda *_: seen.append(1))
    example = TASK.examples(Split.TEST, 1)[0]
    twice = Example(example.key, example.images, example.question, "", choices=("odd", CHOICES[3], "odd"))
    prompt = question_text(answerer.processor, 1, example.question)
    inputs = encode(answerer, [twice], [prompt])
    weights = log_likelihoods(answerer, inputs, [twice], [prompt])[0]
    assert weights[0] == weights[2]
    assert len(seen) == 1
    assert likeliest(answerer, inputs, [Example("", twice.images, "", "", choices=("odd", "odd"))], [prompt]) == ["odd"]


def test_a_suite_is_answered_by_likelihood(checkpoint, tmp_path) -> None:
    """By `evaluate`, for every batch size the same, and every response is one of the choices."""
    suite = Suite((TASK,), samples=SAMPLES)
    scores = [evaluate(checkpoint, suite, tmp_path / str(size), size) for size in (2, 9)]
    rows = [read_samples(tmp_path / str(size) / "samples.parquet") for size in (2, 9)]
    assert rows[0] == rows[1]
    assert scores[0] == scores[1]
    examples = TASK.examples(Split.TEST, SAMPLES)
    assert all(row.response in example.choices for row, example in zip(rows[0], examples, strict=True))
    processor = load_processor(checkpoint)
    prompts, _ = batches_of(processor, examples, 3)
    assert tuple(row.prompt for row in rows[0]) == prompts


def test_refusals(checkpoint) -> None:
    answerer = load_answerer(checkpoint)
    with pytest.raises(InputError, match="'k' has no choices"):
        choices_of(answerer, Example("k", (), "?", ""), "?")
    with pytest.raises(InputError, match="choice '' is no token"):
        choices_of(answerer, Example("k", (), "?", "", choices=("",)), "?")


def test_choices_that_melt_with_the_prompt(checkpoint) -> None:
    """The prompt's tokens stay those of the prompt alone."""
    answerer = load_answerer(checkpoint)
    tokenizer = answerer.processor.tokenizer
    before, whole = (tokenizer(text).input_ids for text in ("seve", "seven"))
    assert whole[: len(before)] != before
    (tokens,) = choices_of(answerer, Example("k", (), "?", "", choices=("n",)), "seve")
    assert list(tokens) == tokenizer("n", add_special_tokens=False).input_ids
