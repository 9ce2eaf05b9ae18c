"""The same sources merged in memory again and again: for searching a merge's hyperparameters without a disk in between.

    live = LiveMerge([Source("previous", ...), Source("tuned", ...)])
    for alpha in (0.0, 0.1, 0.2):
        live.merge_into(dict(model.named_parameters()), WiseFT(alpha))     # then ask the model

Every tensor comes out bit for bit as `execute(plan_merge(...))` would write it: it is the plan of `match.py`, the blocks and counting
rounds of the engine and its rounding, with other ends (`engine/mapped.py`) for reading and writing. What is the same in all sources is
found once and left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from mergers.checkpoints.companions import choose_companions
from mergers.checks import check_memory, check_request
from mergers.engine.layout import ITEM_OUTPUT_BYTES, MAX_SHARD_SIZE, Action, TensorPlan, cut_items
from mergers.gather import Gathered, gather
from mergers.match import plan_tensors
from mergers.merger import Merger, Need
from mergers.methods.linear import WeightedAverage
from mergers.sources.inside import check_shared
from mergers.sources.names import modern, steps_of
from mergers.sources.source import Source

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mergers.engine.mapped import Maps
    from mergers.merger import Array


@dataclass(frozen=True)
class Task:
    """One merge: the tensors to be made, names of the sources (then of the base), and what is known of each tensor by its name."""

    tensors: tuple[TensorPlan, ...]
    names: tuple[str, ...]
    known: Mapping[str, Array] = field(default_factory=dict)


def gather_live(sources: Sequence[Source], base: Source | None, partial: bool) -> Gathered:
    """The sources, checked as `plan_merge` checks them: those of its checks too that are of the output's config and small files."""
    found = gather(sources, base, partial)
    choose_companions(found.everyone, found.anchor.name, None)
    check_shared(sources, {"model_type": found.anchor.checkpoint.config.get("model_type")}, sorted(set().union(*found.held)))
    return found


def plan_live(given: Gathered, merger: Merger) -> tuple[TensorPlan, ...]:
    """Every tensor of the output by this method, sorted by name. ConfigError, InputError as from `plan_merge`."""
    useful = given.sources if merger.statistic else [replace(source, statistics={}) for source in given.sources]
    check_request(merger, useful, given.base, None, MAX_SHARD_SIZE, None)
    tensors = plan_tensors(merger, given.sources, given.base, given.held, given.anchor, None)
    check_memory(tensors)
    return tensors


class LiveMerge:
    """Sources (and a base) held by mmap under one set of names, merged in memory again and again.

    Making one reads all weights once: to find what is the same in all sources and the base, and to refuse what no merge could use. It
    raises what `plan_merge` would: ConfigError, InputError; and InputError for integers and tied heads that differ, and for weights that
    are not finite, unless they are allowed. Memory: the page cache, and a tensor's result at a time.

    A method gets what it has a use for: one that knows no base is carried out as if none were given, one that reads no statistics as if
    none were there. So one object serves a search over several methods.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        base: Source | None = None,
        *,
        partial: bool = False,
        allow_nonfinite: bool = False,
        threads: int = 1,
    ) -> None:
        from mergers.engine.mapped import Maps
        from mergers.engine.survey import survey

        check_threads(threads)
        self.partial = partial
        self.allow_nonfinite = allow_nonfinite
        self.all = gather_live(sources, base, partial)
        self.steps = steps_of(self.all.anchor.checkpoint.config)
        self.maps: Maps = Maps()
        self.tensors = plan_tensors(WeightedAverage(), sources, base, self.all.held, self.all.anchor, None)
        self.same = survey(self.tensors, self.all.proofs, self.all.names, self.maps, allow_nonfinite, threads)
        self.settled = frozenset(self.in_memory_name(name) for name in self.same)

    @cached_property
    def alone(self) -> Gathered:
        """The sources without the base, for methods that have no use for one."""
        from mergers.engine.survey import survey

        if self.all.base is None:
            return self.all
        found = gather_live(self.all.sources, None, self.partial)
        survey((), found.proofs, found.names, self.maps, self.allow_nonfinite, 1)
        return found

    def gathered(self, merger: Merger) -> Gathered:
        """What a method is given."""
        return self.alone if merger.base is Need.NO else self.all

    def kept(self) -> tuple[str, ...]:
        """Names (in the anchor's files, sorted) of the tensors that every method leaves as they are, so that they are never merged."""
        return tuple(sorted(self.same))

    def in_memory_name(self, name: str) -> str:
        """The name that a loaded transformers model has for a tensor of the anchor's files."""
        return modern(name, self.steps)

    def unchanging(self) -> Iterator[tuple[str, Tensor]]:
        """(name in the anchor's files, tensor) of all that is `kept`, as a merge would write it: for a model that holds other weights than
        the sources."""
        tensors = [tensor for tensor in self.tensors if tensor.name in self.same]
        first = [replace(each, action=Action.COPY, positions=each.positions[:1], entries=each.entries[:1], base=None) for each in tensors]
        return self.make(Task(tuple(first), self.all.names), 1)

    def merged(self, merger: Merger, threads: int = 1) -> Iterator[tuple[str, Tensor]]:
        """(name in the anchor's files, merged tensor as the file would hold it) of every tensor that is not `kept`, sorted by name.

        Checks and counting rounds are done when this is called, each tensor is made when it is asked for; its memory is the caller's.
        Raises ConfigError and InputError as `plan_merge` does, InputError for a result that is not finite.
        """
        return self.make(self.prepare(merger, threads), threads)

    def merge_into(self, parameters: Mapping[str, Tensor], merger: Merger, threads: int = 1, *, cast: bool = False) -> None:
        """Merge straight into a loaded model's parameters, by their names: `merged` and `put` without a copy in between, where the
        parameter lies in the processor's memory in one piece.

        Nothing is written before all checks have passed. An error after that leaves some parameters merged and others not.
        """
        from mergers.engine.making import dtype_of

        task = self.prepare(merger, threads)
        targets = {}
        for tensor in task.tensors:
            targets[tensor.name] = target(parameters, self.in_memory_name(tensor.name), tensor.shape, dtype_of(tensor.dtype), cast)
        for name, result in self.make(task, threads, targets):
            if result is not targets[name]:
                targets[name].copy_(result)

    def prepare(self, merger: Merger, threads: int) -> Task:
        """What is to be merged, checked, with what the counting rounds have found."""
        from mergers.engine.counting import Meter, run_rounds
        from mergers.engine.execute import InProcess

        check_threads(threads)
        self.maps.check()
        given = self.gathered(merger)
        tensors = plan_live(given, merger)
        changing = tuple(each for each in tensors if self.in_memory_name(each.name) not in self.settled)
        if not any(each.merger.rounds for each in tensors):
            return Task(changing, given.names)
        counted = tensors if merger.pooled else changing  # a pool counts the unchanged too
        items = cut_items(counted, (), given.names, self.allow_nonfinite, ITEM_OUTPUT_BYTES)
        known = run_rounds(items, InProcess(threads), Meter(0, None))
        keys = {piece.tensor.name: piece.key for item in items for piece in item.pieces}
        return Task(changing, given.names, {name: known[key] for name, key in keys.items() if key in known})

    def make(self, task: Task, threads: int, targets: Mapping[str, Tensor] | None = None) -> Iterator[tuple[str, Tensor]]:
        """The tensors of a task."""
        from mergers.engine.making import make

        return make(task.tensors, task.names, task.known, self.maps, self.allow_nonfinite, threads, targets or {})


def put(parameters: Mapping[str, Tensor], merged: Iterable[tuple[str, Tensor]], *, cast: bool = False) -> None:
    """Copy tensors into the parameters of their names, one by one, keeping the parameters' memory.

    Raises InputError for a name that is none of `parameters` and for another shape; for another dtype too, unless it is to be `cast`.
    """
    for name, tensor in merged:
        target(parameters, name, tuple(tensor.shape), tensor.dtype, cast).copy_(tensor)


def target(parameters: Mapping[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype, cast: bool) -> Tensor:
    """The memory of the parameter that takes a tensor; InputError if there is none that fits."""
    if name not in parameters:
        raise InputError(
            f"{unknown('parameter', name, list(parameters))}; the model is not one of the sources' kind, or names it otherwise"
        )
    found = parameters[name].detach()
    if tuple(found.shape) != tuple(shape):
        raise InputError(
            f"parameter '{name}' has shape {tuple(found.shape)}, its merged tensor {tuple(shape)}; load the model of the sources"
        )
    if found.dtype != dtype and not cast:
        raise InputError(
            f"parameter '{name}' is {found.dtype}, its merged tensor {dtype}; in another dtype it is no longer the merge that a file would "
            f"hold: load the model in {dtype}, or set cast to round all the same"
        )
    return found


def check_threads(threads: int) -> None:
    """Raise ConfigError for less than one."""
    if threads < 1:
        raise ConfigError(f"threads is {threads}; it must be at least 1")
