"""Counting-bias probe: how strongly a checkpoint leans towards number tokens while it answers.

A model that has just learned to count may put numbers into answers that want none. The probe lets it answer freely and greedily and
looks at the next-token distribution of every step, p = softmax(z) over the vocabulary, N the number tokens:

    max number logit   max_{v in N} z_v          max number probability   max_{v in N} p_v
    total number probability   Σ_{v in N} p_v

A sample is told by their mean and maximum over its steps, a data set by mean and standard deviation over its samples. The step that
produces the end-of-text token is a sample's last; what batching makes a model compute after it is not counted.

Logits are read as float32 while they are made (never kept: [batch, vocabulary] at a time), means are float64. The batch size does not
matter, rounding aside.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from evaluators.analysis.number_tokens import NumberTokens, number_tokens
from evaluators.generate import Answerer, encode
from evaluators.questions import batches_of
from foundation.errors import InputError
from models.prompts import tokenizer_of
from tasks.task import Example

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Statistics:
    """The seven numbers of one sample, over the steps of its answer; of a data set, their means or standard deviations."""

    avg_max_number_logit: float
    max_number_logit: float
    avg_total_number_prob: float
    max_total_number_prob: float
    avg_max_number_prob: float
    max_max_number_prob: float
    num_generation_steps: float


NAMES = tuple(field.name for field in fields(Statistics))


@dataclass(frozen=True)
class ProbedSample:
    """One answer, and how much it leaned towards numbers."""

    key: str
    response: str
    statistics: Statistics


@dataclass(frozen=True)
class NumberBias:
    """One checkpoint on one data set. `deviation` is the standard deviation over the samples (divisor n)."""

    tokens: NumberTokens
    samples: tuple[ProbedSample, ...]
    mean: Statistics
    deviation: Statistics

    def as_json(self) -> dict[str, Any]:
        """All of it but the token set, as plain values."""
        told = [{"key": sample.key, "response": sample.response, **asdict(sample.statistics)} for sample in self.samples]
        return {"mean": asdict(self.mean), "std": asdict(self.deviation), "number_tokens": len(self.tokens.ids), "samples": told}


def number_bias(
    answerer: Answerer, examples: Sequence[Example], max_new_tokens: int, batch_size: int = 16, on_batch: Progress | None = None
) -> NumberBias:
    """What the checkpoint in `answerer` does on `examples`, samples in their order; `on_batch` hears how many are done.

    Raises InputError for no examples, a batch size or a length below one, a vocabulary without numbers, or one larger than the model's.
    """
    if not examples or batch_size < 1 or max_new_tokens < 1:
        raise InputError(
            f"{len(examples)} examples of at most {max_new_tokens} tokens in batches of {batch_size} ask nothing; use at least 1 of each"
        )
    tokens = number_tokens(tokenizer_of(answerer.processor))
    rows = answerer.model.get_output_embeddings().weight.shape[0]
    if tokens.ids[-1] >= rows:
        raise InputError(
            f"the tokenizer's number token {tokens.entries[-1]!r} has id {tokens.ids[-1]}, but the model tells {rows} tokens apart; "
            "put the tokenizer that belongs to the checkpoint beside it"
        )
    prompts, batches = batches_of(answerer.processor, examples, batch_size)
    found: dict[int, ProbedSample] = {}
    for batch in batches:
        inputs = encode(answerer, [examples[index] for index in batch], [prompts[index] for index in batch])
        for index, (response, statistics) in zip(batch, probe(answerer, inputs, tokens, max_new_tokens), strict=True):
            found[index] = ProbedSample(examples[index].key, response, statistics)
        if on_batch is not None:
            on_batch(len(found))
    samples = tuple(found[index] for index in range(len(examples)))
    return NumberBias(tokens, samples, *spread([sample.statistics for sample in samples]))


class NumberWatch(LogitsProcessor):
    """Sees every step's logits [B, V] and leaves them as they are; keeps [3, B] per step: largest logit, total and largest probability."""

    def __init__(self, tokens: NumberTokens, device: torch.device) -> None:
        self.ids = torch.tensor(tokens.ids, device=device)
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = scores.float()
        numbers, whole = logits[:, self.ids], logits.logsumexp(dim=1)
        largest = numbers.amax(dim=1)
        self.steps.append(torch.stack([largest, (numbers.logsumexp(dim=1) - whole).exp(), (largest - whole).exp()]))
        return scores


@torch.inference_mode()
def probe(answerer: Answerer, inputs: dict[str, Tensor], tokens: NumberTokens, max_new_tokens: int) -> list[tuple[str, Statistics]]:
    """Greedy answers to one encoded batch, each with its statistics."""
    watch = NumberWatch(tokens, answerer.device)
    produced = answerer.model.generate(**inputs, max_new_tokens=max_new_tokens, logits_processor=LogitsProcessorList([watch]))
    new = produced[:, inputs["input_ids"].shape[1] :].cpu()
    texts = tokenizer_of(answerer.processor).batch_decode(new, skip_special_tokens=True)
    seen = torch.stack(watch.steps, dim=-1).double().cpu()  # [3, B, steps]
    lengths = answer_lengths(new, answerer.model.generation_config.eos_token_id)
    return [(text.strip(), statistics(seen[:, row, :length])) for row, (text, length) in enumerate(zip(texts, lengths, strict=True))]


def answer_lengths(new: Tensor, ends: Sequence[int]) -> list[int]:
    """Steps of each answer in `new` [B, steps]: up to and with the first token that ends it, else all."""
    ended = torch.isin(new, torch.tensor(ends))
    first = torch.where(ended.any(dim=1), ended.int().argmax(dim=1) + 1, new.shape[1])
    return [int(length) for length in first]


def statistics(steps: Tensor) -> Statistics:
    """The seven numbers of one answer from its steps [3, steps]: largest number logit, total and largest number probability."""
    (logit, total, largest), (top_logit, top_total, top_largest) = steps.mean(dim=1).tolist(), steps.amax(dim=1).tolist()
    return Statistics(logit, top_logit, total, top_total, largest, top_largest, steps.shape[1])


def spread(samples: Sequence[Statistics]) -> tuple[Statistics, Statistics]:
    """Mean and standard deviation (divisor n) of each number over the samples."""
    columns = list(zip(*(astuple(sample) for sample in samples), strict=True))
    means = [math.fsum(column) / len(column) for column in columns]
    squares = [math.fsum((value - mean) ** 2 for value in column) for column, mean in zip(columns, means, strict=True)]
    return Statistics(*means), Statistics(*(math.sqrt(square / len(samples)) for square in squares))
