"""Which tensors compiled code can merge, told before any of it, or torch, is loaded."""

from __future__ import annotations

import importlib.util
import os
from functools import cache

from mergers.engine.layout import Action, TensorPlan
from mergers.table import method_name

METHODS = frozenset(
    (
        "dare_ties",
        "ema",
        "karcher",
        "slerp",
        "spherical_average",
        "task_arithmetic",
        "ties",
        "ties_per_tensor",
        "weighted_average",
        "wise_ft",
    )
)
"""The methods of `kernels/table.py`, by name."""
DTYPES = frozenset(("BF16", "F32"))
SWITCH = "MERGELINE_COMPILED"
"""An environment variable: with 0, all is computed by torch."""


def served(tensor: TensorPlan, device: str) -> bool:
    """Whether there is compiled code for a tensor's method, and sources, base and output have dtypes that it knows, the former but one."""
    entries = (*tensor.entries, *((tensor.base,) if tensor.base else ()))
    dtypes = {entry.dtype for entry in entries}
    known = len(dtypes) == 1 and dtypes | {tensor.dtype} <= DTYPES
    return known and device == "cpu" and not changed(tensor) and installed() and method_name(tensor.merger) in METHODS


def needs_torch(tensor: TensorPlan, device: str) -> bool:
    """Whether a tensor cannot be merged, or copied, without torch."""
    if tensor.action is Action.MERGE:
        return not served(tensor, device)
    return changed(tensor) or any(entry.dtype != tensor.dtype for entry in tensor.entries)


def changed(tensor: TensorPlan) -> bool:
    """Whether what lies on disk is put together or added to before it is merged."""
    return any(entry.rows or entry.added for entry in tensor.reads)


@cache
def installed() -> bool:
    """Whether there is a compiler for the compiled code, and it is not switched off."""
    return os.environ.get(SWITCH) != "0" and importlib.util.find_spec("numba") is not None
