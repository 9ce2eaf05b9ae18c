"""Tensors of a plan made in memory: the blocks of `shard.py`, read from mapped files and written into one result after another.

Threads share the blocks of one tensor, so there is one result at a time however many there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from foundation.errors import InputError
from mergers.engine.arrays import as_array
from mergers.engine.counting import nonfinite_message
from mergers.engine.layout import Piece, Region, TensorPlan, WorkItem, block_elements
from mergers.engine.machine import keep_freed_memory, one_torch_thread
from mergers.engine.mapped import MappedFiles, Maps
from mergers.engine.outcome import ItemOutcome, Nonfinite
from mergers.engine.shard import merge_block
from mergers.table import method_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mergers.merger import Array

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "C64": "complex64",
}  # fmt: skip
"""safetensors' name of a dtype -> torch's."""
ANY_CUT = ("weighted_average", "wise_ft", "ema")
"""Methods that make each element from its own values alone, and equal finite ones into themselves to the bit: any cutting will do."""
WIDE = 8
"""Blocks that are computed as one where any cutting will do: threads get in each other's way less."""


def make(
    tensors: Sequence[TensorPlan],
    names: tuple[str, ...],
    known: Mapping[str, Array],
    maps: Maps,
    allow_nonfinite: bool,
    threads: int,
    targets: Mapping[str, Tensor],
) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of each of `tensors`: one of `targets` itself where that can be written to as it is, else fresh memory.

    `names` are those of the sources, then of the base; `known` is what counting rounds have led to, by tensor. InputError for a result
    that is not finite, unless that is allowed.
    """
    keep_freed_memory()
    with ThreadPoolExecutor(threads) as pool:
        for tensor in tensors:
            target = targets.get(tensor.name)
            result = target if target is not None and fits(target, tensor) else empty(tensor)
            item = WorkItem(0, names, (), allow_nonfinite, {tensor.name: known[tensor.name]} if tensor.name in known else {})
            nonfinite = fill(tensor, item, result, maps, threads, pool)
            if nonfinite:
                raise InputError(nonfinite_message(nonfinite))
            yield tensor.name, result
            del result  # or there would be two while the next is made


def fill(tensor: TensorPlan, item: WorkItem, result: Tensor, maps: Maps, threads: int, pool: ThreadPoolExecutor) -> Nonfinite:
    """Merge all blocks of a tensor into `result`; the values that are not finite, counted."""
    import torch

    block = block_elements(tensor.merger.granularity, tensor.shape)
    if method_name(tensor.merger) in ANY_CUT and not item.allow_nonfinite:
        block *= WIDE
    piece = Piece(tensor, tensor.name, 0, tensor.elements, block, Region("", 0, tensor.dtype))
    data = as_array(result.view(-1).view(torch.uint8))
    blocks = list(piece.blocks)
    share = max(1, -(-len(blocks) // threads))
    runs = [blocks[first : first + share] for first in range(0, len(blocks), share)]

    def run(part: Sequence[tuple[int, int]]) -> Nonfinite:
        files, outcome = MappedFiles(maps), ItemOutcome(0)
        files.result = data
        with one_torch_thread():
            for start, count in part:
                merge_block(item, piece, files, outcome, start, count)
        return outcome.nonfinite

    with one_torch_thread():
        return sum(map(run, runs) if len(runs) < 2 else pool.map(run, runs), Counter())


def fits(target: Tensor, tensor: TensorPlan) -> bool:
    """Whether a tensor can be made in the memory of `target`."""
    return target.device.type == "cpu" and target.dtype == dtype_of(tensor.dtype) and target.is_contiguous()


def empty(tensor: TensorPlan) -> Tensor:
    """Memory for a tensor, in its shape and dtype."""
    import torch

    return torch.empty(tensor.shape, dtype=dtype_of(tensor.dtype))


def dtype_of(dtype: str) -> torch.dtype:
    """torch's dtype of a safetensors name."""
    import torch

    found: torch.dtype = getattr(torch, DTYPES[dtype])
    return found
