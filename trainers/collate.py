"""From examples to a batch: image and conversation through the checkpoint's own processor, with the loss on the answer alone.

An example is encoded when a batch first needs it and kept as long as there is room, so a small task is encoded once per stage and a large
one within bounded memory. What a batch holds never depends on what was kept, so a resumed stage computes the same.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from foundation.errors import InputError
from models.prompts import conversation_text, question_text, tokenizer_of
from tasks.task import Example

IGNORED = -100
"""The label of a token that carries no loss."""

ROOM = 256 * 2**20
"""Bytes of encoded examples that are kept."""

Row = dict[str, Tensor]


class AnswerCollator:
    """Makes a batch of the examples at given indices, padded on the right to the longest.

    Gives input_ids, attention_mask and labels [B, T] int64, and what the processor makes of the images (for LLaVA pixel_values
    [B, 3, H, W] float32). Labels are IGNORED up to the answer and in the padding; the token that ends the answer is learned.
    Raises InputError where the prompt's tokens are not the beginning of the conversation's.
    """

    def __init__(self, examples: Sequence[Example], processor: Any, room: int = ROOM) -> None:
        self.examples = examples
        self.processor = processor
        self.room = room
        self.rows: dict[int, Row] = {}

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The batch of the examples at `indices`."""
        missing = sorted(set(indices) - self.rows.keys())
        fresh = self._encode(missing) if missing else {}
        if fresh is None:
            return self._encode_batch(self._at(indices))
        self._keep(fresh)
        return self._stack([self.rows[index] if index in self.rows else fresh[index] for index in indices])

    def _at(self, indices: Sequence[int]) -> list[Example]:
        return [self.examples[index] for index in indices]

    def _encode(self, indices: Sequence[int]) -> dict[int, Row] | None:
        """One row per example, without its padding; None where the tensors do not go by examples (many images, loose patches)."""
        examples = self._at(indices)
        if len({len(example.images) for example in examples}) != 1 or len(examples[0].images) > 1:
            return None
        batch = self._encode_batch(examples)
        if any(len(tensor) != len(examples) for tensor in batch.values()):
            return None
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        padded = batch["input_ids"].shape
        return {
            index: {name: (tensor[row, :length] if tensor.shape == padded else tensor[row]).clone() for name, tensor in batch.items()}
            for row, (index, length) in enumerate(zip(indices, lengths, strict=True))
        }

    def _encode_batch(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """What the processor makes of the examples, with labels."""
        texts = [conversation_text(self.processor, len(each.images), each.question, each.answer) for each in examples]
        images = [image for each in examples for image in each.images]
        options = {"images": images} if images else {}
        batch = dict(self.processor(text=texts, padding=True, padding_side="right", return_tensors="pt", **options))
        labels = torch.full_like(batch["input_ids"], IGNORED)
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        for row, (length, learned) in enumerate(zip(lengths, self._answer_lengths(examples, texts), strict=True)):
            labels[row, length - learned : length] = batch["input_ids"][row, length - learned : length]
        return batch | {"labels": labels}

    def _answer_lengths(self, examples: Sequence[Example], texts: Sequence[str]) -> list[int]:
        """How many tokens follow the prompt.

        Counted before images are written out as many tokens: that lengthens prompt and whole alike.
        """
        tokenizer = tokenizer_of(self.processor)
        asked = {(len(each.images), each.question): question_text(self.processor, len(each.images), each.question) for each in examples}
        prompts = dict(zip(asked, tokenizer(list(asked.values()))["input_ids"], strict=True))
        found = []
        for example, whole in zip(examples, tokenizer(list(texts))["input_ids"], strict=True):
            prompt = prompts[len(example.images), example.question]
            if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
                raise InputError(
                    f"example {example.key!r}: the tokens of its prompt are not the beginning of the tokens of prompt and answer "
                    f"{example.answer!r}, so the answer cannot be learned alone; use a chat template whose prompt ends with a special token"
                )
            found.append(len(whole) - len(prompt))
        return found

    def _keep(self, fresh: dict[int, Row]) -> None:
        """Keep new rows while there is room."""
        for index, row in fresh.items():
            size = sum(tensor.nbytes for tensor in row.values())
            if size <= self.room:
                self.room -= size
                self.rows[index] = row

    def _stack(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Rows as one batch; shorter ones are filled at the end of each dimension."""
        fills = {"labels": IGNORED, "input_ids": pad_token(self.processor)}
        return {name: stack_padded([row[name] for row in rows], fills.get(name, 0)) for name in rows[0]}


def pad_token(processor: Any) -> int:
    """The id that fills the end of a row; the attention mask hides it, so the end-of-text token does where none is named."""
    tokenizer = tokenizer_of(processor)
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def stack_padded(tensors: Sequence[Tensor], fill: int) -> Tensor:
    """Tensors of one rank as one [len(tensors), ...], each filled with `fill` up to the largest size of each dimension."""
    if all(first.shape == second.shape for first, second in pairwise(tensors)):
        return torch.stack(list(tensors))
    shape = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    stacked = tensors[0].new_full((len(tensors), *shape), fill)
    for place, tensor in zip(stacked, tensors, strict=True):
        place[tuple(slice(size) for size in tensor.shape)] = tensor
    return stacked
