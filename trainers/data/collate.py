"""From indices to a batch: rows of encoded examples, kept as long as there is room, laid side by side.

An example is encoded when a batch first needs it, so a small task is encoded once per stage and a large one within bounded memory. What a
batch holds never depends on what was kept, so a resumed stage computes the same.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from models.prompts import tokenizer_of
from tasks.task import Example
from trainers.data.encoding import IGNORED, Row, encode
from trainers.data.packing import pack

__all__ = ["IGNORED", "AnswerCollator", "concatenate"]

ROOM = 256 * 2**20
"""Bytes of encoded examples that are kept."""


class AnswerCollator:
    """Makes a batch of the examples at given indices, padded on the right to the longest.

    Gives input_ids, attention_mask and labels [B, T] int64, and what the processor makes of the images (for LLaVA pixel_values
    [N, 3, H, W] float32, the N images in the order in which the rows show them). Labels are IGNORED but for what the assistant says and
    the tokens that end it. With `packing`, several examples share a row; see `trainers.data.packing`. Raises InputError for an example that
    cannot be encoded or is longer than `max_length`; see `trainers.data.encoding`.
    """

    def __init__(
        self, examples: Sequence[Example], processor: Any, room: int = ROOM, max_length: int | None = None, packing: bool = False
    ) -> None:
        self.examples = examples
        self.processor = processor
        self.room = room
        self.max_length = max_length
        self.packing = packing
        self.rows: dict[int, Row] = {}

    def __call__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The batch of the examples at `indices`."""
        missing = sorted(set(indices) - self.rows.keys())
        encoded = encode(self.processor, [self.examples[index] for index in missing], self.max_length) if missing else []
        fresh = dict(zip(missing, encoded, strict=True))
        self._keep(fresh)
        rows = [self.rows[index] if index in self.rows else fresh[index] for index in indices]
        fill = pad_token(self.processor)
        return pack(rows, fill, self.max_length) if self.packing else lay_out(rows, fill)

    def _keep(self, fresh: dict[int, Row]) -> None:
        """Keep new rows while there is room."""
        for index, row in fresh.items():
            size = sum(tensor.nbytes for tensor in row.values())
            if size <= self.room:
                self.room -= size
                self.rows[index] = row


def lay_out(rows: Sequence[Row], fill: int) -> dict[str, Tensor]:
    """Rows as one batch, each token tensor filled at its end; images' tensors end to end, in the rows' order.

    A token tensor that a row lacks (of some processors, the marks of what is an image in a row of text alone) is zeros for all its tokens.
    """
    fills = {"labels": IGNORED, "input_ids": fill}
    batch = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        held = {place: row[name] for place, row in enumerate(rows) if name in row}
        if all(by_token(tensor, rows[place]) for place, tensor in held.items()):
            kind = next(iter(held.values()))
            column = [held[place] if place in held else kind.new_zeros(len(row["input_ids"])) for place, row in enumerate(rows)]
            batch[name] = side_by_side(column, fills.get(name, 0))
        else:
            batch[name] = concatenate(list(held.values()))
    return batch


def by_token(tensor: Tensor, row: Row) -> bool:
    """Whether a row's tensor has one value for each token; others go by images, of which a row always has fewer than tokens."""
    return tensor.shape == row["input_ids"].shape


def pad_token(processor: Any) -> int:
    """The id that fills the end of a row; the attention mask hides it, so the end-of-text token does where none is named."""
    tokenizer = tokenizer_of(processor)
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def side_by_side(tensors: Sequence[Tensor], fill: int) -> Tensor:
    """Tensors [T] as one [len(tensors), largest T], each filled at its end."""
    if len({tensor.shape for tensor in tensors}) == 1:
        return torch.stack(list(tensors))
    stacked = tensors[0].new_full((len(tensors), max(len(tensor) for tensor in tensors)), fill)
    for place, tensor in zip(stacked, tensors, strict=True):
        place[: len(tensor)] = tensor
    return stacked


def concatenate(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one rank end to end along the first dimension; the others are filled at their end with 0 up to the largest."""
    if len({tensor.shape[1:] for tensor in tensors}) == 1:
        return torch.cat(list(tensors))
    sizes = [max(size) for size in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    missing = [[size - has for size, has in zip(sizes, tensor.shape[1:], strict=True)] for tensor in tensors]
    return torch.cat(
        [pad(tensor, [side for m in reversed(more) for side in (0, m)]) for tensor, more in zip(tensors, missing, strict=True)]
    )
