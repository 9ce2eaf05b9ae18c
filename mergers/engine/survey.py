"""One look at all sources before they are merged again and again: what is the same in all of them, and whether anything is unfit.

A tensor whose bytes are the same in all contributors (and the base) comes out as they are, whatever the method: that is the contract of
`merger.py`. So it need not be merged a second time. Found block by block like a merge, with the merge's own comparisons and messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from foundation.errors import InputError
from mergers.checkpoints.header import FLOATS
from mergers.engine.arrays import same_bytes
from mergers.engine.counting import nonfinite_message
from mergers.engine.layout import BLOCK_ELEMENTS, Action, Piece, TensorPlan, WorkItem
from mergers.engine.machine import one_torch_thread
from mergers.engine.mapped import MappedFiles, Maps
from mergers.engine.outcome import Nonfinite
from mergers.engine.shard import count_nonfinite, read_block, unequal


def survey(
    tensors: Sequence[TensorPlan], proofs: Sequence[TensorPlan], names: tuple[str, ...], maps: Maps, allow_nonfinite: bool, threads: int
) -> frozenset[str]:
    """Names of the `tensors` that every method gives back as they are: the same in all contributors, or held by one alone.

    `names` are those of the sources, then of the base. Raises InputError for tensors that had to be the same and are not (integers, the
    `proofs` of tied heads), and for values that are not finite, all of them counted, unless they are allowed.
    """

    def look(tensor: TensorPlan) -> tuple[bool, Nonfinite]:
        return compare(tensor, names, maps, allow_nonfinite)

    with one_torch_thread(), ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(look, (*proofs, *tensors)))
    nonfinite: Nonfinite = sum((counts for _, counts in found), Counter())
    if nonfinite:
        raise InputError(nonfinite_message(nonfinite))
    return frozenset(tensor.name for tensor, (same, _) in zip(tensors, found[len(proofs) :], strict=True) if same)


def compare(tensor: TensorPlan, names: tuple[str, ...], maps: Maps, allow_nonfinite: bool) -> tuple[bool, Nonfinite]:
    """Whether a tensor is the same in all contributors, and how many values are not finite in each."""
    item = WorkItem(0, names, (), allow_nonfinite)
    piece = Piece(tensor, tensor.name, 0, tensor.elements, BLOCK_ELEMENTS, None)
    files, same, nonfinite = MappedFiles(maps), True, Counter[tuple[str, str]]()
    with one_torch_thread():
        for start, count in piece.blocks:
            values = read_block(piece, files, start, count)
            same = same and all(same_bytes(values[0], other) for other in values[1:])
            if not same and tensor.action is not Action.MERGE:
                raise InputError(unequal(item, piece))
            if tensor.dtype in FLOATS and not allow_nonfinite:
                nonfinite.update(count_nonfinite(item, piece, values[:1] if same else values))
    return same, nonfinite
