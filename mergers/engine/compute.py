"""What is computed of a block: by compiled code where there is some for its method and dtypes, else by the method itself, in torch.

Both give the same bits. Compiled code works on the elements as they were read, so a merge that it can do whole never loads torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mergers.checkpoints.header import TensorEntry
from mergers.engine.arrays import DTYPES, as_array, as_tensor, is_finite, torch_dtype
from mergers.engine.layout import Piece, TensorPlan, WorkItem, shaped
from mergers.engine.served import served
from mergers.engine.transfer import Files
from mergers.kernels.table import Kernel, kernel_for
from mergers.merger import Inputs

if TYPE_CHECKING:
    from torch import Tensor

    from mergers.engine.rounds import Tally
    from mergers.merger import Array


def kernel_of(tensor: TensorPlan, device: str) -> Kernel | None:
    """The compiled code that merges a tensor, if there is some."""
    return kernel_for(tensor.merger) if served(tensor, device) else None


def count_values(round_number: int, item: WorkItem, piece: Piece, files: Files, start: int, values: list[Array], tally: Tally) -> None:
    """Add to a tally what a block says in a counting round."""
    kernel = kernel_of(piece.tensor, files.device)
    if kernel is not None and kernel.count is not None:
        sources, base = apart(piece, values)
        if kernel.count(piece.tensor.merger, round_number, numbers_of(item, piece, start), sources, base, tally):
            return
    tally.add(piece.tensor.merger.observe(round_number, inputs_of(item, piece, files, start, values)))


def merged_values(item: WorkItem, piece: Piece, files: Files, start: int, values: list[Array]) -> Array:
    """The merged block, flat, in the dtype of the output. Compiled code does it where all that comes out is finite: what is not has to be
    told of, or kept as torch keeps it."""
    tensor = piece.tensor
    kernel = kernel_of(tensor, files.device)
    if kernel is not None:
        sources, base = apart(piece, values)
        dtype = DTYPES[tensor.dtype]
        result = files.buffer("result", len(values[0]) * dtype.itemsize).view(dtype)
        if kernel.merge(tensor.merger, numbers_of(item, piece, start), sources, base, result) and is_finite(result):
            return result
    merged = tensor.merger.merge(inputs_of(item, piece, files, start, values))
    if merged.numel() != len(values[0]):
        raise ValueError(f"{tensor.merger} gave {tuple(merged.shape)} for {len(values[0])} elements of '{tensor.name}'")
    return as_array(merged.reshape(-1).to(torch_dtype(tensor.dtype)))


def cast(values: Array, dtype: str) -> Array:
    """The elements in a float dtype, rounded once."""
    return values if values.dtype == DTYPES[dtype] else as_array(as_tensor(values).to(torch_dtype(dtype)))


def apart(piece: Piece, values: list[Array]) -> tuple[tuple[Array, ...], Array | None]:
    """The sources' blocks, and the base's."""
    return (tuple(values[:-1]), values[-1]) if piece.tensor.base else (tuple(values), None)


def numbers_of(item: WorkItem, piece: Piece, start: int) -> Inputs:
    """What the method sees of a block, but for its values."""
    tensor = piece.tensor
    names = tuple(item.sources[position] for position in tensor.positions)
    known = item.known.get(piece.key)
    return Inputs(tensor.name, start, (), tensor.positions, None, names, tensor.elements, (), known)


def inputs_of(item: WorkItem, piece: Piece, files: Files, start: int, values: list[Array]) -> Inputs:
    """What the method sees of a block, on the device that computes."""
    tensor = piece.tensor
    tensors = [as_tensor(value) for value in values]
    if files.device != "cpu":
        tensors = [each.to(files.device, non_blocking=True) for each in tensors]
    pieces = [shaped(each, tensor.merger.granularity, tensor.shape) for each in tensors]
    base = pieces.pop() if tensor.base else None
    statistics = tuple(
        None if entry is None else measured(piece, files, slot, entry, start, len(values[0]))
        for slot, entry in enumerate(tensor.statistics)
    )
    return replace(numbers_of(item, piece, start), tensors=tuple(pieces), base=base, statistics=statistics)


def measured(piece: Piece, files: Files, slot: int, entry: TensorEntry, start: int, count: int) -> Tensor:
    """One source's statistic: the same range as the weights, or the whole of it."""
    statistic = piece.tensor.merger.statistic
    if statistic is not None and statistic.per_element:
        values = as_tensor(files.read(("statistic", slot), entry, start, count))
        return shaped(values.to(files.device), piece.tensor.merger.granularity, piece.tensor.shape)
    return files.whole(entry).to(files.device)
