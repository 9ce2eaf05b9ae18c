"""What a work item reports when it has been done."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mergers.engine.rounds import Tally

Nonfinite = Counter[tuple[str, str]]
"""(tensor, where) -> how many values are NaN or infinite there."""


@dataclass
class ItemOutcome:
    """What a work item reports: bytes moved, what its counting round has found by key, tensors that were computed (not copied), and values
    that are not finite."""

    index: int
    bytes_read: int = 0
    bytes_written: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    nonfinite: Nonfinite = field(default_factory=Counter)
