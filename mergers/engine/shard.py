"""What a worker does with a work item: show its blocks to the method in a counting round, or merge them and write its bytes of the output.

`observe_shard` and `merge_shard` are stateless, picklable by name and safe to run twice or beside others: a merge writes only the bytes of
its item, and only into files that exist already. Memory: a few blocks, whatever the size of the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from foundation.errors import InputError
from mergers.checkpoints.header import FLOATS
from mergers.engine.arrays import is_finite, not_finite, same_bytes
from mergers.engine.compute import cast, count_values, merged_values
from mergers.engine.layout import Action, Piece, WorkItem
from mergers.engine.machine import disk_errors, keep_freed_memory, one_torch_thread
from mergers.engine.outcome import ItemOutcome, Nonfinite
from mergers.engine.served import needs_torch
from mergers.engine.transfer import Files

if TYPE_CHECKING:
    from mergers.merger import Array


def observe_shard(item: WorkItem, round_number: int, device: str = "cpu") -> ItemOutcome:
    """Show every block of a work item to its method in one counting round. Raises nothing for the data's sake: what is not finite is
    reported."""
    from mergers.engine.rounds import Tally

    with working(item, "", device) as (files, outcome):
        for piece in item.pieces:
            merger = piece.tensor.merger
            tally = outcome.tallies.setdefault(piece.key, Tally())
            for start, count in piece.blocks:
                if not merger.watches(round_number, start // piece.block):
                    continue
                values = read_block(piece, files, start, count)
                first_look = not any(merger.watches(earlier, start // piece.block) for earlier in range(round_number))
                if first_look and not item.allow_nonfinite:
                    outcome.nonfinite.update(count_nonfinite(item, piece, values))
                count_values(round_number, item, piece, files, start, values, tally)
            files.forget_whole()
    return outcome


def merge_shard(item: WorkItem, directory: str, device: str = "cpu") -> ItemOutcome:
    """Merge every block of a work item and write it into the output files that lie ready in `directory`.

    Raises InputError for tensors that had to be the same in all sources and are not, ResourceError for a full disk.
    """
    with working(item, directory, device) as (files, outcome):
        for piece in item.pieces:
            for start, count in piece.blocks:
                merge_block(item, piece, files, outcome, start, count)
            files.forget_whole()
    return outcome


def merge_block(item: WorkItem, piece: Piece, files: Files, outcome: ItemOutcome, start: int, count: int) -> None:
    """Read, merge and write one block; what is the same in all sources (and the base) is copied, where the method allows it."""
    values = read_block(piece, files, start, count)
    equal = all(same_bytes(values[0], other) for other in values[1:])
    if equal and (piece.tensor.action is not Action.MERGE or piece.tensor.merger.copies_equal):
        result = values[0]
    elif piece.tensor.action is Action.MERGE:
        result = merged_values(item, piece, files, start, values)
        if not equal or not same_bytes(values[0], result):
            outcome.computed.add(piece.tensor.name)
    else:
        raise InputError(unequal(item, piece))
    if piece.output is None:
        return
    if any(entry.added or entry.dtype != piece.output.dtype for entry in piece.tensor.entries):
        outcome.computed.add(piece.tensor.name)
    if piece.output.dtype in FLOATS:
        result = cast(result, piece.output.dtype)
        if not item.allow_nonfinite and not is_finite(result):
            found = count_nonfinite(item, piece, values)
            outcome.nonfinite.update(found or {(piece.tensor.name, f"the result as {piece.output.dtype}"): not_finite(result)})
    files.write(piece.output, start, result)


def read_block(piece: Piece, files: Files, start: int, count: int) -> list[Array]:
    """The block of every source that holds the tensor, then that of the base if there is one; flat."""
    entries = (*piece.tensor.entries, *((piece.tensor.base,) if piece.tensor.base else ()))
    return [files.read(slot, entry, start, count) for slot, entry in enumerate(entries)]


def unequal(item: WorkItem, piece: Piece) -> str:
    """The sentence for tensors that had to be equal and are not."""
    tensor = piece.tensor
    if tensor.action is Action.PROVE_TIED:
        return (
            f"source '{item.sources[tensor.positions[0]]}': the config ties the output head to the embedding, but '{tensor.name}' on disk "
            "differs from it; set tie_word_embeddings to false in config.json if the head is meant to be its own, else remove it from the "
            "checkpoint"
        )
    names = ", ".join(f"'{item.sources[position]}'" for position in tensor.positions)
    return (
        f"tensor '{tensor.name}' ({tensor.dtype}) differs between {names}; tensors of this dtype are not averaged but copied, so they must "
        "be the same in all sources"
    )


def count_nonfinite(item: WorkItem, piece: Piece, values: list[Array]) -> Nonfinite:
    """How many values are not finite in each source of a block, and in the base."""
    where = [f"source '{item.sources[position]}'" for position in piece.tensor.positions] + ["the base"]
    broken = ((place, value) for place, value in zip(where, values, strict=False) if not is_finite(value))
    return Counter({(piece.tensor.name, place): not_finite(value) for place, value in broken})


@contextmanager
def working(item: WorkItem, directory: str, device: str) -> Iterator[tuple[Files, ItemOutcome]]:
    """Open files and an outcome for a work item; the outcome's bytes are entered at the end."""
    files, outcome = Files(directory, device), ItemOutcome(item.index)
    keep_freed_memory()
    alone = one_torch_thread() if any(needs_torch(piece.tensor, device) for piece in item.pieces) else nullcontext()
    with alone, disk_errors(directory, item.nbytes):
        try:
            yield files, outcome
        finally:
            files.close()
    outcome.bytes_read, outcome.bytes_written = files.bytes_read, files.bytes_written
