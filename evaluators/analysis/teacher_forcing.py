"""Right answers put to a model: examples as one batch of questions with their answers, and where in it the answers stand.

The text is the one that stages learn from (`models.prompts`), so an evaluator looks at the very positions that carry loss in training.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from foundation.errors import InputError
from models.prompts import conversation, question_text, special_tokens, tokenizer_of
from tasks.task import Example


def encode_answered(processor: Any, examples: Sequence[Example]) -> tuple[dict[str, Tensor], Tensor]:
    """The model's inputs for questions with their right answers, padded on the right; and which tokens are the answers', [B, T] bool.

    An answer's tokens are those behind its prompt, with the token that ends it; of a conversation of several turns, the last answer's.
    Raises InputError where the prompt's tokens are not the beginning of the whole's.
    """
    texts = [conversation(processor, len(each.images), each.turns).text for each in examples]
    tokenizer = tokenizer_of(processor)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # the attention mask hides it
    options: dict[str, Any] = {"padding": True, "padding_side": "right", "return_tensors": "pt", **special_tokens(processor, texts[0])}
    if any(example.images for example in examples):
        options["images"] = [list(example.images) for example in examples]
    batch = dict(processor(text=texts, **options))
    ends = batch["attention_mask"].sum(dim=1)
    answers = torch.tensor([answer_length(processor, example, text) for example, text in zip(examples, texts, strict=True)])
    places = torch.arange(batch["input_ids"].shape[1])[None]
    return batch, (places < ends[:, None]) & (places >= (ends - answers)[:, None])


def answer_length(processor: Any, example: Example, text: str) -> int:
    """How many tokens of `text` follow the prompt; counted before an image is written out as many tokens, which lengthens both alike."""
    tokenizer = tokenizer_of(processor)
    prompt = tokenizer(question_text(processor, len(example.images), example.question, example.before))["input_ids"]
    whole = tokenizer(text)["input_ids"]
    if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
        raise InputError(
            f"example {example.key!r}: the tokens of its prompt are not the beginning of the tokens of prompt and answer "
            f"{example.answer!r}, so the answer cannot be told apart; use a chat template whose prompt ends with a special token"
        )
    return len(whole) - len(prompt)
