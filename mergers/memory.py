"""Merging tensors that are already in memory: the same blocks, the same rounds, the same bits as merging files.

For notebooks, for small models, and for holding a method against its formula. Checkpoint directories go through `plan.py` and `execute.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mergers.layout import block_elements, shaped
from mergers.merger import Inputs, Merger

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array

    Tensors = Mapping[str, Tensor]


def merge_tensors(
    merger: Merger, sources: Mapping[str, Tensors], base: Tensors | None = None, statistics: Mapping[str, Tensors] | None = None
) -> dict[str, Tensor]:
    """The merge of `sources` (name -> tensors by name, in config order), each tensor in the first source's dtype and shape.

    `statistics` maps a source to its measured statistic by tensor name. A tensor may be held by some sources only. Raises ConfigError if
    the hyperparameters do not fit the sources.
    """
    from mergers.rounds import Tally

    merger.check(tuple(sources))
    names = sorted(set().union(*sources.values()))
    blocks = {name: list(blocks_of(merger, name, sources, base, statistics or {})) for name in names}
    known: dict[str, Array] = {}
    for number in range(merger.rounds):
        tallies: dict[str, Tally] = {}
        for name in names:
            key = "" if merger.pooled else name
            for index, block in enumerate(blocks[name]):
                if merger.needs(number, known.get(key)) and merger.watches(number, index):
                    tallies.setdefault(key, Tally()).add(merger.observe(number, replace(block, known=known.get(key))))
        known |= {key: merger.summarize(number, tally.total(), known.get(key)) for key, tally in tallies.items()}
    return {name: assemble(merger, blocks[name], known.get("" if merger.pooled else name), sources) for name in names}


def blocks_of(
    merger: Merger, name: str, sources: Mapping[str, Tensors], base: Tensors | None, statistics: Mapping[str, Tensors]
) -> Iterator[Inputs]:
    """The blocks of one tensor, as the merger is to see them."""
    positions = tuple(index for index, held in enumerate(sources.values()) if name in held)
    holders = tuple(tuple(sources)[index] for index in positions)
    tensors = [sources[holder][name].contiguous() for holder in holders]
    shape, elements = tuple(tensors[0].shape), tensors[0].numel()
    anchor = base[name].contiguous() if base is not None and name in base else None
    measured = [statistics.get(holder, {}).get(name) for holder in holders]
    step = block_elements(merger.granularity, shape)
    for start in range(0, max(1, elements), step):
        cut = slice(start, start + step)
        yield Inputs(
            name,
            start,
            tuple(shaped(tensor.view(-1)[cut], merger.granularity, shape) for tensor in tensors),
            positions,
            None if anchor is None else shaped(anchor.view(-1)[cut], merger.granularity, shape),
            holders,
            elements,
            tuple(
                value.contiguous().view(-1)[cut] if value is not None and merger.statistic and merger.statistic.per_element else value
                for value in measured
            ),
        )


def assemble(merger: Merger, blocks: list[Inputs], known: Array | None, sources: Mapping[str, Tensors]) -> Tensor:
    """One merged tensor, rounded once to the first holder's dtype; blocks that are the same everywhere are copied."""
    import torch

    model = next(held[blocks[0].name] for held in sources.values() if blocks[0].name in held)
    parts = []
    for block in blocks:
        others = (*block.tensors[1:], *(() if block.base is None else (block.base,)))
        copied = merger.copies_equal and all(same(block.tensors[0], other) for other in others)
        result = block.tensors[0] if copied else merger.merge(replace(block, known=known))
        parts.append(result.to(model.dtype).reshape(-1))
    return torch.cat(parts).view(model.shape)


def same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of one shape have one dtype and the same bytes."""
    import torch

    return first.dtype == second.dtype and torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))
