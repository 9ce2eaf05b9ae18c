"""Counting rounds: every block that a round looks at is shown to its method, on whatever executor, and what comes back is added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from foundation.errors import InputError
from mergers.engine.layout import Action, Piece, WorkItem
from mergers.engine.outcome import ItemOutcome, Nonfinite

if TYPE_CHECKING:
    from mergers.merger import Array

Progress = Callable[[int, int], None]


class Executor(Protocol):
    """Runs a function over work items, anywhere and in any order; every item at least once."""

    def map(self, function: Callable[[WorkItem], ItemOutcome], items: Sequence[WorkItem]) -> Iterator[ItemOutcome]:
        """The outcome of each item, once per item, in any order. When the iterator ends by an exception or is closed, no item may be
        running any more."""
        ...


class Meter:
    """Adds up the bytes moved and tells them to `progress`."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total = total
        self.progress = progress
        self.bytes_read = 0
        self.bytes_written = 0

    def add(self, outcome: ItemOutcome) -> None:
        """Count what one item has moved."""
        self.bytes_read += outcome.bytes_read
        self.bytes_written += outcome.bytes_written
        if self.progress:
            self.progress(min(self.bytes_read + self.bytes_written, self.total), self.total)


def run_rounds(items: Sequence[WorkItem], executor: Executor, meter: Meter, device: str = "cpu") -> dict[str, Array]:
    """Carry out all counting rounds: what is known by key when the last has ended. InputError if any weight is not finite."""
    from mergers.engine.rounds import Tally
    from mergers.engine.shard import observe_shard

    mergers = {piece.key: piece.tensor.merger for item in items for piece in item.pieces if piece.tensor.action is Action.MERGE}
    known: dict[str, Array] = {}
    for number in range(max((merger.rounds for merger in mergers.values()), default=0)):
        keys = {key for key, merger in mergers.items() if number < merger.rounds and merger.needs(number, known.get(key))}
        watched = [part for item in items if (part := watched_part(item, number, keys)).pieces]
        if not watched:
            continue
        pieces = [piece for item in watched for piece in item.pieces if not piece.tensor.merger.likely(number)]
        meter.total += sum(piece.bytes_of_round(number) for piece in pieces)
        parts = Counter(key for item in watched for key in {piece.key for piece in item.pieces})
        tallies: dict[str, Tally] = {}
        nonfinite: Nonfinite = Counter()
        function = partial(observe_shard, round_number=number, device=device)
        for outcome in checked(executor.map(function, informed(watched, known)), len(watched)):
            meter.add(outcome)
            nonfinite += outcome.nonfinite
            for key, tally in outcome.tallies.items():
                tallies.setdefault(key, Tally()).join(tally)
                parts[key] -= 1
                if not parts[key]:  # all of it has been seen: keep the conclusion, drop the counts
                    known[key] = mergers[key].summarize(number, tallies.pop(key).total(), known.get(key))
        if nonfinite:
            raise InputError(nonfinite_message(nonfinite))
    return known


def watched_part(item: WorkItem, round_number: int, keys: Collection[str]) -> WorkItem:
    """The item with only those pieces that a counting round looks at."""

    def watched(piece: Piece) -> bool:
        watches = piece.tensor.merger.watches
        asked = piece.tensor.action is Action.MERGE and piece.key in keys
        return asked and any(watches(round_number, start // piece.block) for start, _ in piece.blocks)

    return replace(item, pieces=tuple(filter(watched, item.pieces)))


def informed(items: Sequence[WorkItem], known: Mapping[str, Array]) -> Sequence[WorkItem]:
    """The items, each with what is known of its own tensors."""
    if not known:
        return items
    return [replace(item, known={piece.key: known[piece.key] for piece in item.pieces if piece.key in known}) for item in items]


def checked(outcomes: Iterator[ItemOutcome], count: int) -> Iterator[ItemOutcome]:
    """The outcomes, proven to be one per item."""
    returned = 0
    for outcome in outcomes:
        returned += 1
        yield outcome
    if returned != count:
        raise RuntimeError(f"the executor returned {returned} outcomes for {count} work items")


def nonfinite_message(counts: Counter[tuple[str, str]]) -> str:
    """The sentence for NaN and infinite values: how many, in which tensors, in which source."""
    tensors = {tensor for tensor, _ in counts}
    listed = [f"'{tensor}': {count} in {where}" for (tensor, where), count in sorted(counts.items())]
    more = f"; and {len(listed) - 5} more" if len(listed) > 5 else ""
    return (
        f"{sum(counts.values())} values in {len(tensors)} tensors are NaN or infinite ({'; '.join(listed[:5])}{more}); find out what "
        "broke the checkpoint, "
        "or set allow_nonfinite to merge all the same"
    )
