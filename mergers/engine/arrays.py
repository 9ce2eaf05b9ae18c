"""Elements as the engine carries them: flat numpy arrays, whose dtype is that of the weights; and questions about their bits.

bfloat16, which numpy lacks, goes as uint16; what is no float goes as bytes (uint8), so nothing else is uint16. torch sees the same memory
(`as_tensor`), and is loaded only where a formula needs it: what is copied, compared or compiled does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mergers.engine.served import DTYPES as COMPILED
from mergers.kernels.table import compiled

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mergers.merger import Array

DTYPES: dict[str, np.dtype[Any]] = {"F64": np.dtype("f8"), "F32": np.dtype("f4"), "F16": np.dtype("f2"), "BF16": np.dtype("u2")}
"""safetensors' name of a float dtype -> that of its arrays."""
INFINITY = {
    np.dtype("f8"): 0x7FF << 52,
    np.dtype("f4"): 0xFF << 23,
    np.dtype("f2"): 0x1F << 10,
    np.dtype("u2"): 0xFF << 7,
}
"""The bits of infinity: those of all that is finite are below, the sign aside."""
QUICK = tuple(DTYPES[name] for name in sorted(COMPILED))


def typed(data: Array, dtype: str) -> Array:
    """Raw bytes seen as elements of `dtype`."""
    return data.view(DTYPES[dtype]) if dtype in DTYPES else data


def as_tensor(array: Array) -> Tensor:
    """The same memory as a torch tensor."""
    import torch

    if array.dtype == DTYPES["BF16"]:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_array(tensor: Tensor) -> Array:
    """A flat tensor of floats or bytes as an array, from wherever it is; the same memory, if that is the processor's."""
    import torch

    tensor = tensor.cpu()
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of a float dtype's safetensors name."""
    import torch

    return {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]


def same_bytes(first: Array, second: Array) -> bool:
    """Whether two flat arrays have one dtype and the same bytes, eight at a time; a look at the first few settles most cases."""
    if first.dtype != second.dtype:
        return False
    left, right = first.view(np.uint8), second.view(np.uint8)
    if (left[:64] != right[:64]).any():
        return False
    words = len(left) // 8 * 8
    return bool((left[words:] == right[words:]).all() and (left[:words].view("i8") == right[:words].view("i8")).all())


def is_finite(array: Array) -> bool:
    """Whether no element of a flat array of floats is NaN or infinite: told by the largest bits, the sign aside."""
    code = compiled() if array.dtype in QUICK else None
    if code is not None:
        return bool(code.finite(array))
    return not len(array) or largest(array) < INFINITY[array.dtype]


def largest(array: Array) -> int:
    """The largest bits of an element without its sign. Where the sign is + that is the largest as a signed integer, where it is - the
    largest as an unsigned one: two looks cost less than taking the signs away."""
    width = 8 * array.itemsize
    signed, unsigned = array.view(f"i{array.itemsize}").max(), array.view(f"u{array.itemsize}").max()
    return max(int(signed), int(unsigned) - (1 << width - 1))


def not_finite(array: Array) -> int:
    """How many elements of a flat array of floats are NaN or infinite."""
    if array.dtype == DTYPES["BF16"]:
        return int(np.count_nonzero((array & 0x7FFF) >= INFINITY[array.dtype]))
    return int(np.count_nonzero(~np.isfinite(array)))


def aligned(size: int) -> Array:
    """Fresh memory for `size` bytes, from a multiple of 64 on, where vector units load best."""
    data = np.empty(size + 64, dtype=np.uint8)
    start = -data.ctypes.data % 64
    return data[start : start + size]
