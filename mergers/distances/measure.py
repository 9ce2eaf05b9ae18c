"""Distances between checkpoints as a sharded reduction: the same plan, work items and executors as a merge, but nothing is written.

    found = measure([Source("a", ...), Source("b", ...)], base=Source("base", ...), executor=InProcess(4))
    found.total(("a", "b"))["cosine"]

Any number of workers gives the same bits, and no worker holds more than a few blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, cast

from foundation.errors import InputError
from mergers.checkpoints.header import FLOATS, TensorEntry
from mergers.distances.groups import Group, group_of
from mergers.distances.metrics import Column, Distance, metrics_of
from mergers.engine.execute import Executor, InProcess, Meter, Progress, run_rounds
from mergers.engine.layout import ITEM_OUTPUT_BYTES, Action, TensorPlan, bytes_counted, cut_items
from mergers.merger import Merger
from mergers.sources.agreement import check_configs, check_names, check_tensor, drop_tied_heads
from mergers.sources.inside import cover
from mergers.sources.names import modern, steps_of
from mergers.sources.source import Source, anchor_of, shared_by_experts, unify

if TYPE_CHECKING:
    from mergers.merger import Array

Pair = tuple[str, str]
Metrics = dict[str, float | None]
"""Metric -> value; None where it is not defined."""


@dataclass(frozen=True)
class Distances:
    """What was measured: `sums` maps a pair of sources to its tensors' sums (`distance.Column`), by the anchor's names."""

    sources: tuple[str, ...]
    base: str | None
    density: float
    sums: Mapping[Pair, Mapping[str, Array]]
    groups_of: Mapping[str, Group]
    notes: tuple[str, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs, in config order."""
        return tuple(combinations(self.sources, 2))

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups that hold tensors: by tower, then by layer, then by part, as the names come."""
        towers = list(dict.fromkeys(group.tower for group in self.groups_of.values()))
        return tuple(sorted(set(self.groups_of.values()), key=lambda group: (towers.index(group.tower), group.layer, group.part)))

    @cached_property
    def members(self) -> dict[Group, list[str]]:
        """The tensors of each group."""
        found: dict[Group, list[str]] = {}
        for name, group in self.groups_of.items():
            found.setdefault(group, []).append(name)
        return found

    def total(self, pair: Pair) -> Metrics:
        """The metrics of a pair over all its tensors taken together."""
        return self.of(pair, self.sums[pair])

    def group(self, pair: Pair, group: Group) -> Metrics:
        """The metrics of a pair over the tensors of one group; all None where it has none in common."""
        return self.of(pair, [name for name in self.members[group] if name in self.sums[pair]])

    def of(self, pair: Pair, tensors: Iterable[str]) -> Metrics:
        """The metrics of a pair over the tensors named, taken together, and the number of their `elements`."""
        import numpy as np

        from mergers.engine.rounds import exact_sum

        held = [self.sums[pair][name] for name in tensors]
        columns = np.stack(held).T if held else np.zeros((len(Column), 0))
        sums = np.array([exact_sum(column) for column in columns])
        return {"elements": sums[Column.ELEMENTS].item(), **metrics_of(sums)}


def measure(
    sources: Sequence[Source],
    base: Source | None = None,
    *,
    density: float = 0.2,
    partial: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
    item_bytes: int = ITEM_OUTPUT_BYTES,
) -> Distances:
    """The distances between all pairs of `sources`; of their task vectors if a `base` is given.

    `density` is the share of each tensor that the truncated SSD keeps. With `partial` a pair is compared over the tensors that both hold.
    `progress(bytes_done, bytes_total)` counts bytes read, over all passes. Raises ConfigError for a request that makes no sense,
    InputError for sources that do not fit one another and for weights that are not finite.
    """
    names = tuple(source.name for source in sources)
    check_names([*names, *([base.name] if base else [])])
    observer = Distance(density)
    observer.check(names)
    tensors, notes = plan_distances(observer, sources, base, partial)
    items = cut_items(tensors, (), names, False, item_bytes)
    known = run_rounds(items, executor or InProcess(), Meter(bytes_counted(items), progress))
    sums: dict[Pair, dict[str, Array]] = {pair: {} for pair in combinations(names, 2)}
    for tensor in tensors:
        holders = [names[position] for position in tensor.positions]
        for pair, row in zip(combinations(holders, 2), known.get(tensor.name, ()), strict=tensor.name in known):
            sums[pair][tensor.name] = row
    steps = steps_of(anchor_of(sources, base).checkpoint.config)
    groups = {tensor.name: group_of(modern(tensor.name, steps)) for tensor in tensors}
    return Distances(names, base.name if base else None, density, sums, groups, tuple(notes))


def plan_distances(
    observer: Distance, sources: Sequence[Source], base: Source | None, partial: bool
) -> tuple[tuple[TensorPlan, ...], list[str]]:
    """Every tensor that two sources or more hold, sorted by name, and what a user should know; InputError if sources do not fit."""
    everyone, anchor = [*sources, *([base] if base else [])], anchor_of(sources, base)
    notes = check_configs(everyone, anchor)
    named, renamed = unify(everyone, anchor)
    held, tied = drop_tied_heads(everyone, named, anchor)
    held, more = cover(sources, base, held, partial, anchor)
    plans = []
    left: Counter[str] = Counter()
    for name in sorted(set().union(*held[: len(sources)])):
        positions = tuple(position for position in range(len(sources)) if name in held[position])
        below = held[-1].get(name) if base else None
        entries = tuple(held[position][name] for position in positions)
        holders = [sources[position] for position in positions]
        names = [source.name for source in holders] + ["the base"] * (below is not None)
        check_tensor(name, names, (*entries, below) if below else entries)
        reason = why_left(holders, entries, base, below)
        if reason:
            left[reason] += 1
        else:
            merger = cast(Merger, observer)  # its rounds are all of a merger that is asked for
            plans.append(TensorPlan(name, entries[0].dtype, entries[0].shape, Action.MERGE, merger, positions, entries, below))
    if not plans:
        told = "; ".join(f"{count} tensors {reason}" for reason, count in left.items())
        raise InputError(f"there is nothing to compare between {', '.join(source.name for source in sources)}: {told}")
    if tied:
        notes.append(f"the config ties the output head to the embedding, so '{tied[0][1].name}' is not compared")
    return tuple(plans), notes + renamed + more + [f"{count} tensors are left out: they {reason}" for reason, count in left.items()]


def why_left(holders: Sequence[Source], entries: Sequence[TensorEntry], base: Source | None, below: TensorEntry | None) -> str:
    """Why a tensor is not compared; empty if it is."""
    if len(entries) < 2:
        return "are held by one source only"
    if entries[0].dtype not in FLOATS:
        return "hold integers, between which there is no distance"
    if shared_by_experts(holders, entries):
        return "are shared by all experts"
    return f"are not in the base '{base.name}', so there is no task vector" if base is not None and below is None else ""
