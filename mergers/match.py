"""Which tensors of which sources meet in which tensor of the output, in what dtype, by which method."""

from collections import Counter
from collections.abc import Mapping, Sequence

from foundation.errors import InputError
from foundation.hints import nearest
from mergers.checkpoints.header import FLOATS, TensorEntry
from mergers.engine.layout import Action, TensorPlan
from mergers.merger import Merger
from mergers.methods.linear import WeightedAverage
from mergers.schedule import resolve_mergers
from mergers.sources.agreement import check_tensor
from mergers.sources.source import Source, all_experts, shared_by_experts


def plan_tensors(
    merger: Merger,
    sources: Sequence[Source],
    base: Source | None,
    held: Sequence[Mapping[str, TensorEntry]],
    anchor: Source,
    dtype: str | None,
) -> tuple[TensorPlan, ...]:
    """Every output tensor with its contributors, sorted by name; `held` are the tensors of each source, then those of the base.

    Its dtype is the anchor's, else the first holder's; `dtype` instead for all that hold floats, if given. A tensor that only one
    checkpoint holds is copied. Raises InputError for tensors that do not fit one another, ConfigError for rules that fit no tensor.
    """
    everyone = [*sources, *([base] if base else [])]
    for source in sources:
        check_measured(source)
    first = next(index for index, source in enumerate(everyone) if source is anchor)
    plans = []
    for name, method in resolve_mergers(merger, sorted(set().union(*held)), [source.name for source in sources]).items():
        positions = tuple(index for index, found in enumerate(held) if name in found)
        entries = tuple(held[index][name] for index in positions)
        check_tensor(name, [everyone[index].name for index in positions], entries)
        model = held[first].get(name, entries[0])
        action = Action.MERGE if model.dtype in FLOATS and len(entries) > 1 else Action.COPY
        made = dtype if dtype and model.dtype in FLOATS else model.dtype
        below = entries[-1] if base and len(entries) > 1 and positions[-1] == len(sources) else None
        if below:
            positions, entries = positions[:-1], entries[:-1]
        if shared_by_experts([everyone[index] for index in positions], entries):
            positions, entries, below, action = positions[:1], entries[:1], None, Action.COPY
        statistics = plan_statistics(method, name, sources, positions, entries) if action is Action.MERGE else ()
        if method.statistic and not any(statistics):  # nothing was measured of it on any source: a mean of elements, not of whole matrices
            method, statistics = WeightedAverage(getattr(method, "weights", None)), ()
        if action is Action.MERGE:
            method.check_holders(name, positions)
        plans.append(TensorPlan(name, made, model.shape, action, method, positions, entries, below, statistics))
    return tuple(plans)


def check_measured(source: Source) -> None:
    """Raise InputError for statistics of tensors that the source does not hold, or that are no floats."""
    held = source.checkpoint.tensors
    strange = sorted(source.statistics.keys() - held.keys())
    if strange:
        close = nearest(strange[0], held)
        raise InputError(
            f"the statistics of source '{source.name}' are for {len(strange)} tensors that it does not hold, e.g. '{strange[0]}'"
            + (f" (it holds '{close}')" if close else "")
            + "; measure them on that checkpoint, under its names"
        )
    wrong = next((entry for entry in source.statistics.values() if entry.dtype not in FLOATS), None)
    if wrong is not None:
        raise InputError(f"the statistic '{wrong.name}' of source '{source.name}' has dtype {wrong.dtype}; known: {', '.join(FLOATS)}")


def plan_statistics(
    merger: Merger, name: str, sources: Sequence[Source], positions: Sequence[int], entries: Sequence[TensorEntry]
) -> tuple[TensorEntry | None, ...]:
    """What was measured of this tensor on each source that holds it; InputError if that does not suffice for the method."""
    if merger.statistic is None:
        return ()
    found = tuple(sources[position].statistics.get(entry.name) for position, entry in zip(positions, entries, strict=True))
    holders = [sources[position] for position in positions]
    names = [source.name for source in holders]
    merger.check_statistics(name, entries[0].shape, [None if entry is None else entry.shape for entry in found], names)
    if all_experts(holders) and not any(found):
        check_unmeasured(merger, name, entries[0], names)
    return found


def check_unmeasured(merger: Merger, name: str, entry: TensorEntry, names: Sequence[str]) -> None:
    """Raise InputError for a matrix of experts of which no Gram was measured at all, unless a mean will do.

    What is merged between experts lies in the layers, and its matrices have inputs: a Gram that is not there is a fault, whereas elsewhere
    it may be that of an embedding, which has none.
    """
    assert merger.statistic is not None
    if len(entry.shape) > 1 and not merger.statistic.per_element and getattr(merger, "missing", "mean") == "error":
        raise InputError(
            f"no {merger.statistic.name} of '{entry.name}' nor of what the other experts of {', '.join(names)} play in tensor '{name}'; "
            "measure it, merge the experts that were measured only, or set missing: mean to take the plain weighted mean of such tensors"
        )


def plan_proof(position: int, head: TensorEntry, embedding: TensorEntry) -> TensorPlan:
    """The comparison of a tied head with its embedding, in one source."""
    return TensorPlan(head.name, head.dtype, head.shape, Action.PROVE_TIED, WeightedAverage(), (position,), (head, embedding))


def partial_notes(tensors: Sequence[TensorPlan], names: Sequence[str], experts: bool = False) -> list[str]:
    """A sentence if some tensors are merged over fewer than all sources. `experts`: all sources are, and so none was asked to hold all."""
    part = [tensor for tensor in tensors if len(tensor.positions) < len(names) and max(tensor.positions) < len(names)]
    part = [tensor for tensor in part if tensor.action is Action.MERGE] if experts else part
    if not part:
        return []
    holders = ", ".join(f"'{names[position]}'" for position in part[0].positions)
    if experts:
        return [f"{len(part)} of {len(tensors)} tensors are merged over the experts that have them, e.g. '{part[0].name}' over {holders}"]
    return [
        f"{len(part)} of {len(tensors)} tensors are merged over the sources that hold them, weights scaled to sum to 1, e.g. "
        f"'{part[0].name}' over {holders}"
    ]


def dtype_notes(tensors: Sequence[TensorPlan], names: Sequence[str]) -> list[str]:
    """A sentence if the output's dtype is not that of all sources."""
    mixed = [tensor for tensor in tensors if any(entry.dtype != tensor.dtype for entry in tensor.entries)]
    if not mixed:
        return []
    tensor = mixed[0]
    each = ", ".join(f"{entry.dtype} in '{names[position]}'" for position, entry in zip(tensor.positions, tensor.entries, strict=True))
    return [f"{len(mixed)} tensors have mixed dtypes, e.g. '{tensor.name}' ({each}); the output takes {tensor.dtype}, as does config.json"]


def main_dtype(tensors: Sequence[TensorPlan]) -> str:
    """The float dtype that most bytes of the output have."""
    weights: Counter[str] = Counter()
    for tensor in tensors:
        weights[tensor.dtype] += tensor.nbytes if tensor.dtype in FLOATS else 0
    return weights.most_common(1)[0][0]
