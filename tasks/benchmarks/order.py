"""The order in which a benchmark is asked whose publication stands type by type: drawn, so that the first questions are of all types.

Only for data that fits in memory; the rows of a larger one are read in the order in which they lie.
"""

from collections.abc import Sequence
from hashlib import blake2b


def drawn_order(name: str, total: int) -> Sequence[int]:
    """The numbers 0 to `total` - 1 in an order drawn by each number's own address, the same wherever and however often it is drawn."""
    return sorted(range(total), key=lambda number: blake2b(f"{name}/{number}".encode(), digest_size=16).digest())
