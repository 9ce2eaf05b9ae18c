"""Several examples in one row, with nothing changed but the room they take.

A micro batch of examples is laid into rows of at most `max_length` tokens. Each example's positions count from 0 and each sees only
itself: transformers makes the block-diagonal causal mask from positions that start again (`masking_utils.find_packed_sequence_indices`),
for eager, SDPA, flex and flash attention, where no attention mask is given and no cache is kept. So a step learns from the same examples
as without packing, with the same loss, and the order of examples, the batch size and a resume are as they were.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from foundation.errors import InputError
from trainers.data.encoding import IGNORED, Row

TOLERANCE = 1e-3
"""How far, relative to the largest logit, a packed probe may be off. Measured: other summation orders in float32 give 2e-6, seeing across
examples gives 0.1 and more."""


def pack(rows: Sequence[Row], fill: int, max_length: int | None) -> dict[str, Tensor]:
    """Rows of examples without images as input_ids, labels and position_ids [R, T] int64, R at most the number of examples.

    T is at most `max_length` (None: the longest example). The first token of an example carries no loss: nothing stands before it that
    could foretell it. Raises InputError for rows with images' tensors.
    """
    refuse_images(rows)
    lengths = [len(row["input_ids"]) for row in rows]
    places = first_fit(lengths, max(max_length or 0, *lengths))
    width = max(sum(lengths[index] for index in inside) for inside in places)
    batch = {
        "input_ids": torch.full((len(places), width), fill),
        "labels": torch.full((len(places), width), IGNORED),
        "position_ids": torch.zeros((len(places), width), dtype=torch.int64),
    }
    for line, inside in enumerate(places):
        begin = 0
        for index in inside:
            end = begin + lengths[index]
            batch["input_ids"][line, begin:end] = rows[index]["input_ids"]
            batch["labels"][line, begin + 1 : end] = rows[index]["labels"][1:]
            batch["position_ids"][line, begin:end] = torch.arange(end - begin)
            begin = end
        batch["position_ids"][line, begin:] = torch.arange(width - begin)  # what fills the row sees itself alone
    return batch


def first_fit(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Which examples share a row of `room` tokens: the longest first, each into the first row that has room."""
    rows: list[list[int]] = []
    left: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        row = next((row for row, space in enumerate(left) if space >= lengths[index]), None)
        if row is None:
            rows.append([])
            left.append(room)
            row = len(rows) - 1
        rows[row].append(index)
        left[row] -= lengths[index]
    return rows


def refuse_images(rows: Sequence[Row]) -> None:
    """Raise InputError for rows that hold more than text."""
    if more := sorted({name for row in rows for name in row} - {"input_ids", "attention_mask", "labels"}):
        raise InputError(f"packing takes text alone, but the examples also give {', '.join(more)}; set packing: false")


@torch.no_grad()
def refuse_unpackable(model: Any) -> None:
    """Raise InputError unless `model` gives packed text the logits it gives the same text alone.

    A model with images is refused by its kind; any other is asked, with two short rows of tokens, which shows a recurrent layer, a mask of
    its own or positions that are not restarted. Leaves the model as it was and draws no random numbers.
    """
    kind = f"{type(model).__name__} ({model.config.model_type})"
    if getattr(model.config, "vision_config", None) is not None:
        raise InputError(f"packing takes models of text alone, not {kind}; set packing: false, or grouping: length to save padding")
    ids = torch.arange(1, 13, device=model.device)[None] % model.get_input_embeddings().num_embeddings
    cuts = (0, 5, 12)
    positions = torch.cat([torch.arange(end - start, device=model.device) for start, end in pairwise(cuts)])[None]
    learning = model.training
    model.eval()
    try:
        packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        alone = torch.cat([model(input_ids=ids[:, a:b], use_cache=False).logits for a, b in pairwise(cuts)], dim=1)
    finally:
        model.train(learning)
    if not (packed - alone).abs().max() <= TOLERANCE * alone.abs().max():
        raise InputError(f"{kind} sees across examples that share a row, so packing would change what is learned; set packing: false")
