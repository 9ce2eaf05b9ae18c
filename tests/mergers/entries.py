"""What a TensorEntry stands for, worked out naively in float64: the yardstick for entries with adapters on them or rows from elsewhere."""

import torch
from torch import Tensor

from mergers.checkpoints.header import Rows, TensorEntry
from mergers.engine.arrays import as_tensor, torch_dtype
from mergers.engine.transfer import Files


def value_of(entry: TensorEntry) -> Tensor:
    """The whole tensor."""
    result = put_together(entry) if entry.rows else on_disk(entry)
    for low_rank in entry.added:
        product = low_rank.scale * (value_of(low_rank.up) @ value_of(low_rank.down))
        result = result + (product.T if low_rank.transposed else product)
    return result


def on_disk(entry: TensorEntry) -> Tensor:
    """The bytes at its place."""
    with open(entry.path, "rb") as file:
        file.seek(entry.start)
        data = bytearray(file.read(entry.nbytes))
    return torch.frombuffer(data, dtype=torch_dtype(entry.dtype)).double().reshape(entry.shape)


def put_together(entry: TensorEntry) -> Tensor:
    """Row by row."""
    assert entry.rows
    parts = [value_of(part) for part in entry.rows.parts]
    numbers = memoryview(entry.rows.numbers).cast("i")
    places = zip(entry.rows.origins, numbers, strict=True)
    zeros = torch.zeros(entry.shape[1:], dtype=torch.float64)
    return torch.stack([zeros if part == Rows.ZEROS else parts[part][row] for part, row in places])


def as_read(entry: TensorEntry, block: int = 7) -> Tensor:
    """The same by the merge's own reader, a few elements at a time."""
    files = Files("")
    try:
        runs = [(start, min(block, entry.elements - start)) for start in range(0, entry.elements, block)]
        blocks = [as_tensor(files.read(0, entry, start, count)).clone() for start, count in runs]
    finally:
        files.close()
    return torch.cat(blocks).reshape(entry.shape)
