"""Merging tensors that are already in memory: the same blocks, the same rounds, the same bits as merging files.

For notebooks, for small models, and for holding a method against its formula. Checkpoint directories go through `plan.py` and `execute.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from foundation.errors import ConfigError, InputError
from mergers.engine.layout import block_elements, shaped
from mergers.merger import Inputs, Merger, Need
from mergers.schedule import resolve_mergers
from mergers.table import method_name

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.merger import Array

    Tensors = Mapping[str, Tensor]


def merge_tensors(
    merger: Merger, sources: Mapping[str, Tensors], base: Tensors | None = None, statistics: Mapping[str, Tensors] | None = None
) -> dict[str, Tensor]:
    """The merge of `sources` (name -> tensors by name, in config order), each tensor in the first source's dtype and shape.

    `statistics` maps a source to its measured statistic by tensor name. A tensor may be held by some sources only; what only the
    base holds is not in the result. Raises ConfigError if the hyperparameters do not fit the sources, InputError for integers that differ.
    """
    from mergers.engine.rounds import Tally

    merger.check(tuple(sources))
    if merger.base is Need.REQUIRED and base is None:
        raise ConfigError(f"{method_name(merger)} measures every source from a base; give its tensors as base")
    names = sorted(set().union(*sources.values()))
    methods = resolve_mergers(merger, names, tuple(sources))
    blocks = {name: list(blocks_of(methods[name], name, sources, base, statistics or {})) for name in names}
    keys = {name: f"pool {id(method)}" if method.pooled else name for name, method in methods.items()}
    known: dict[str, Array] = {}
    for number in range(max((method.rounds for method in methods.values()), default=0)):
        tallies: dict[str, tuple[Merger, Tally]] = {}
        for name, method in methods.items():
            key = keys[name]
            if number >= method.rounds or not method.needs(number, known.get(key)) or not blocks[name][0].tensors[0].is_floating_point():
                continue
            for index, block in enumerate(blocks[name]):
                if method.watches(number, index):
                    observation = method.observe(number, replace(block, known=known.get(key)))
                    tallies.setdefault(key, (method, Tally()))[1].add(observation)
        known |= {key: method.summarize(number, tally.total(), known.get(key)) for key, (method, tally) in tallies.items()}
    return {name: assemble(methods[name], blocks[name], known.get(keys[name]), sources) for name in names}


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
        equal = all(same(block.tensors[0], other) for other in others)
        if not equal and not model.is_floating_point():
            raise InputError(f"tensor '{block.name}' ({model.dtype}) differs between {', '.join(block.sources)}; integers are not averaged")
        copied = equal and (merger.copies_equal or not model.is_floating_point())
        result = block.tensors[0] if copied else merger.merge(replace(block, known=known))
        parts.append(result.to(model.dtype).reshape(-1))
    return torch.cat(parts).view(model.shape)


def same(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of one shape have one dtype and the same bytes."""
    import torch

    return first.dtype == second.dtype and torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))
