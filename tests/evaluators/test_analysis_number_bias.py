"""The counting-bias probe on a tiny random LLaVA, against the plainest loop in float64."""

from dataclasses import astuple, replace

import numpy as np
import pytest
import torch

from evaluators.analysis.number_bias import NAMES, NumberBias, number_bias
from evaluators.analysis.number_tokens import is_number
from evaluators.generate import Answerer, answers, load_answerer
from foundation.errors import InputError
from models.digits_llava import digits_llava, digits_processor
from models.load import save_checkpoint
from models.prompts import question_text
from tasks.digits import all_texts
from tasks.registry import get_task
from tasks.task import Example, Split

LONGEST = 10
EXAMPLES = [*get_task("cell").examples(Split.TEST, 4), *get_task("name").examples(Split.TEST, 3)]
ROUNDING = 2e-5
"""Float32 logits of size ten, made from other batch shapes with and without a cache: a few of their last bits."""


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> Answerer:
    """A random model with large weights, so that answers and their lengths differ."""
    directory = tmp_path_factory.mktemp("checkpoint")
    model = digits_llava(seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 5 if parameter.dim() > 1 else 1
        model.lm_head.weight[model.generation_config.eos_token_id] *= 2.5
    save_checkpoint(model, digits_processor(all_texts()), directory)
    return load_answerer(directory, torch.device("cpu"))


@pytest.fixture(scope="module")
def found(answerer: Answerer) -> NumberBias:
    return number_bias(answerer, EXAMPLES, LONGEST, batch_size=3)


def naive(answerer: Answerer, example: Example) -> tuple[list[float], int]:
    """The seven numbers of one example: the whole text again for every token, no cache, no padding; and the steps it took."""
    processor = answerer.processor
    numbers = [token for entry, token in processor.tokenizer.get_vocab().items() if is_number(entry)]
    inputs = processor(text=question_text(processor, 1, example.question), images=example.images[0], return_tensors="pt")
    ids, steps = inputs["input_ids"], []
    while len(steps) < LONGEST and (not steps or int(ids[0, -1]) != processor.tokenizer.eos_token_id):
        with torch.no_grad():
            logits = answerer.model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=inputs["pixel_values"]).logits[0, -1]
        probability = torch.softmax(logits.double(), dim=0)[numbers]
        steps.append((float(logits[numbers].max()), float(probability.sum()), float(probability.max())))
        ids = torch.cat([ids, logits.argmax()[None, None]], dim=1)
    logit, total, largest = (np.array(column) for column in zip(*steps, strict=True))
    seven = [logit.mean(), logit.max(), total.mean(), total.max(), largest.mean(), largest.max(), len(steps)]
    return [float(value) for value in seven], len(steps)


def test_every_sample_and_the_data_set_equal_the_naive_loop(answerer, found) -> None:
    expected, lengths = zip(*(naive(answerer, example) for example in EXAMPLES), strict=True)
    assert len(set(lengths)) > 2, "answers of several lengths, else the early stop is not tested"
    assert min(lengths) < LONGEST
    assert [sample.key for sample in found.samples] == [example.key for example in EXAMPLES]
    np.testing.assert_allclose([astuple(sample.statistics) for sample in found.samples], expected, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(astuple(found.mean), np.mean(expected, axis=0), rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(astuple(found.deviation), np.std(expected, axis=0), rtol=ROUNDING, atol=ROUNDING)
    assert found.deviation.avg_total_number_prob > 0


def test_the_answers_are_those_of_an_evaluation(answerer, found) -> None:
    assert [sample.response for sample in found.samples] == answers(answerer, EXAMPLES, LONGEST, batch_size=4)


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_the_batch_size_does_not_matter(answerer, found, batch_size) -> None:
    heard: list[int] = []
    other = number_bias(answerer, EXAMPLES, LONGEST, batch_size, heard.append)
    assert heard[-1] == len(EXAMPLES)
    assert [sample.response for sample in other.samples] == [sample.response for sample in found.samples]
    for mine, first in zip(other.samples, found.samples, strict=True):
        assert mine.statistics.num_generation_steps == first.statistics.num_generation_steps
        np.testing.assert_allclose(astuple(mine.statistics), astuple(first.statistics), rtol=ROUNDING, atol=ROUNDING)


def test_plain_values(found) -> None:
    told = found.as_json()
    assert set(told["mean"]) == set(told["std"]) == set(NAMES)
    assert told["number_tokens"] == len(found.tokens.ids)
    assert [set(sample) for sample in told["samples"]] == [{"key", "response", *NAMES}] * len(EXAMPLES)


def test_refusals(answerer) -> None:
    for examples, longest, batch_size in (([], 4, 4), (EXAMPLES, 0, 4), (EXAMPLES, 4, 0)):
        with pytest.raises(InputError, match="ask nothing"):
            number_bias(answerer, examples, longest, batch_size)
    small = digits_llava(seed=0)
    small.resize_token_embeddings(8)
    with pytest.raises(InputError, match="but the model tells 8 tokens apart"):
        number_bias(replace(answerer, model=small), EXAMPLES, 4)
