"""Elements as compiled code sees them: bfloat16 as its 16 bits, float32 as itself; widened to float32 to compute, narrowed once at the end.

`wide` is a shift, `narrow` the rounding to nearest, ties to even, that torch does; `fused` is a * b + c rounded once, as torch's lerp is.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.extending import intrinsic, overload

Compiled = dict[str, Any]
STRICT: Compiled = {"cache": True, "nogil": True, "error_model": "numpy"}
"""How kernels are compiled: kept on disk, without the interpreter's lock, as IEEE 754 divides; sums keep their order (no fastmath)."""
FUSED = bool(llvmlite.binding.get_host_cpu_features().get("fma") or llvmlite.binding.get_default_triple().startswith(("aarch64", "arm64")))
"""Whether the processor multiplies and adds in one step. torch's lerp does so where it can, and else rounds twice."""


def wide(element):  # type: ignore[no-untyped-def]
    """An element as float32."""
    raise RuntimeError("for compiled code")


def narrow(value, like):  # type: ignore[no-untyped-def]
    """A float32 as an element of the array `like`."""
    raise RuntimeError("for compiled code")


def magnitude(element):  # type: ignore[no-untyped-def]
    """An element's bits without its sign, int32: in the order of magnitudes."""
    raise RuntimeError("for compiled code")


def same_sign(value, first, second):  # type: ignore[no-untyped-def]
    """An element with the sign set that two others have in common."""
    raise RuntimeError("for compiled code")


@overload(wide)
def _wide(element):  # type: ignore[no-untyped-def]
    if isinstance(element, types.Integer):
        return lambda element: np.uint32(np.uint32(element) << np.uint32(16)).view(np.float32)
    return lambda element: element


@overload(narrow)
def _narrow(value, like):  # type: ignore[no-untyped-def]
    if isinstance(like.dtype, types.Integer):
        return _rounded
    return lambda value, like: value


def _rounded(value, like):  # type: ignore[no-untyped-def]
    bits = np.float32(value).view(np.uint32)
    rounded = np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))
    return rounded if value == value else np.uint16(0x7FC0)


@overload(magnitude)
def _magnitude(element):  # type: ignore[no-untyped-def]
    if isinstance(element, types.Integer):
        return lambda element: np.int32(element & np.uint16(0x7FFF))
    return lambda element: np.int32(np.float32(element).view(np.int32) & np.int32(0x7FFFFFFF))


@overload(same_sign)
def _same_sign(value, first, second):  # type: ignore[no-untyped-def]
    if isinstance(value, types.Integer):
        return lambda value, first, second: np.uint16(value | (first & second & np.uint16(0x8000)))
    return _with_sign


def _with_sign(value, first, second):  # type: ignore[no-untyped-def]
    sign = np.float32(first).view(np.uint32) & np.float32(second).view(np.uint32) & np.uint32(0x80000000)
    return np.uint32(np.float32(value).view(np.uint32) | sign).view(np.float32)


@intrinsic
def fused(context: Any, first: Any, second: Any, third: Any) -> Any:
    """first * second + third, rounded once; all float32."""
    signature = types.float32(types.float32, types.float32, types.float32)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        single = ir.FloatType()
        function = builder.module.declare_intrinsic("llvm.fma", [single], ir.FunctionType(single, [single] * 3))
        return builder.call(function, arguments)

    return signature, generate


@njit(**STRICT)
def finite(elements: Any) -> bool:
    """Whether none of the elements is NaN or infinite."""
    infinity = np.int32(0xFF << 7) if elements.itemsize == 2 else np.int32(0xFF << 23)
    beyond = np.int32(0)
    for i in range(len(elements)):
        beyond |= np.int32(magnitude(elements[i]) >= infinity)
    return bool(beyond == 0)
