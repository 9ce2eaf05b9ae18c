"""Answering by likelihood: a question's choices are weighed by the model, and the likeliest is its answer.

A choice weighs the sum of the log-probabilities of its tokens after the prompt, in float32, not divided by its length and without an
end-of-text token: as `acc` of the usual harnesses (EleutherAI's lm-evaluation-harness, output type multiple_choice). Every prompt with its
images goes through the model once, and all its choices go on from there; choices of one token, as letters are, need nothing more.
"""

import copy
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from evaluators.generate import Answerer
from foundation.errors import InputError
from models.prompts import special_tokens, tokenizer_of
from tasks.task import Example

Tokens = tuple[int, ...]


def likeliest(answerer: Answerer, inputs: dict[str, Tensor], examples: Sequence[Example], prompts: Sequence[str]) -> list[str]:
    """The likeliest choice of each example, the first of those that weigh the same. `inputs`: the encoded prompts, padded on the left.

    Raises InputError for an example without choices, and for a choice that adds no token to its prompt.
    """
    weights = log_likelihoods(answerer, inputs, examples, prompts)
    return [example.choices[found.index(max(found))] for example, found in zip(examples, weights, strict=True)]


@torch.inference_mode()
def log_likelihoods(
    answerer: Answerer, inputs: dict[str, Tensor], examples: Sequence[Example], prompts: Sequence[str]
) -> list[list[float]]:
    """For each example the log-likelihood of each of its choices."""
    asked = [choices_of(answerer, example, prompt) for example, prompt in zip(examples, prompts, strict=True)]
    begun = answerer.model.generate(**inputs, max_new_tokens=1, return_dict_in_generate=True, output_logits=True)
    first = begun.logits[0].float().log_softmax(-1)  # [B, V]
    nothing = (int(answerer.model.generation_config.pad_token_id),)
    columns = []
    for column in zip_longest(*asked, fillvalue=nothing):  # the j-th choice of every example
        tokens = padded(column, nothing[0]).to(answerer.device)  # [B, T]
        found = first.gather(1, tokens[:, :1])
        if tokens.shape[1] > 1:
            found = torch.cat([found, went_on(answerer, inputs, copy.deepcopy(begun.past_key_values), tokens)], dim=1)
        real = torch.arange(found.shape[1], device=found.device) < torch.tensor([[len(choice)] for choice in column], device=found.device)
        columns.append(torch.where(real, found, 0.0).sum(1).tolist())
    return [[columns[place][row] for place in range(len(choices))] for row, choices in enumerate(asked)]


def went_on(answerer: Answerer, inputs: dict[str, Tensor], cache: Any, tokens: Tensor) -> Tensor:
    """Log-probabilities [B, T - 1] of all `tokens` [B, T] but the first, after the prompts that `cache` holds."""
    ones = torch.ones_like(tokens[:, :1])
    told = Told(tokens[:, 1:])
    answerer.model.generate(
        input_ids=torch.cat([inputs["input_ids"], tokens[:, :1]], dim=1),
        attention_mask=torch.cat([inputs["attention_mask"], ones], dim=1),
        past_key_values=cache,
        max_new_tokens=tokens.shape[1] - 1,
        eos_token_id=None,
        logits_processor=LogitsProcessorList([told]),
    )
    return torch.stack(told.found, dim=1)


class Told(LogitsProcessor):
    """Makes the model say given tokens [B, T], and notes how likely each was."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self.found: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        said = self.tokens[:, len(self.found), None]
        self.found.append(scores.float().log_softmax(-1).gather(1, said)[:, 0])
        return torch.full_like(scores, float("-inf")).scatter(1, said, 0.0)


def padded(rows: Sequence[Tokens], pad: int) -> Tensor:
    """[rows, longest], filled up on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])


def choices_of(answerer: Answerer, example: Example, prompt: str) -> list[Tokens]:
    """The tokens of each choice after the prompt: those that prompt and choice have more than the prompt alone.

    Where a choice's first letters melt with the prompt's last, its own tokens are taken, so that the prompt is the same for all choices.
    """
    if not example.choices:
        raise InputError(
            f"example {example.key!r} has no choices, so none can be the likeliest; give it choices, or set answering: generate"
        )
    tokenizer = tokenizer_of(answerer.processor)
    options = special_tokens(answerer.processor, prompt)
    before = tokenizer(prompt, **options).input_ids
    found = []
    for choice in example.choices:
        whole = tokenizer(prompt + choice, **options).input_ids
        kept = whole[len(before) :] if whole[: len(before)] == before else tokenizer(choice, add_special_tokens=False).input_ids
        if not kept:
            raise InputError(f"example {example.key!r}: its choice {choice!r} is no token after the prompt; write it out")
        found.append(tuple(kept))
    return found
