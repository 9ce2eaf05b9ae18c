"""Whether sources can be merged at all: one architecture, the tensors that each is to hold, one shape, dtypes that mix. Decided from
headers and configs."""

from collections import Counter
from collections.abc import Mapping, Sequence

from foundation.errors import ConfigError, InputError
from mergers.checkpoints.header import FLOATS, TensorEntry
from mergers.sources.configs import check_configs, says_tied
from mergers.sources.names import HEADS, steps_of
from mergers.sources.source import Source, anchor_of, described

__all__ = ["check_configs", "check_cover", "check_names", "check_tensor", "drop_tied_heads"]


def check_names(names: Sequence[str]) -> None:
    """Raise ConfigError if two sources have one name."""
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{names.count(name)} sources are named '{name}'; give each its own name")


def check_cover(
    sources: Sequence[Source],
    tensors: Sequence[Mapping[str, TensorEntry]],
    partial: bool,
    anchor: Source | None = None,
    base: Source | None = None,
) -> None:
    """Raise InputError if a source lacks tensors that another holds and that its view says it is to hold, unless the merge is partial and
    the source shares at least one tensor with another.

    `tensors` are under the anchor's names. A `base` among the sources must hold what it is to hold, partial or not: nothing could be
    measured from it otherwise.
    """
    steps = steps_of((anchor or anchor_of(sources)).checkpoint.config)
    union = sorted(set().union(*tensors))
    holders = Counter(name for held in tensors for name in held)
    for source, held in zip(sources, tensors, strict=True):
        owed = {*held, *source.owed(union, steps)}
        lacking = sorted(owed - held.keys())
        shares = len(sources) == 1 or any(holders[name] > 1 for name in held)
        if shares and (not lacking or (partial and source is not base)):
            continue
        if not shares:
            owed, lacking = {*union}, [name for name in union if name not in held]
            advice = "it has none in common with the others: it is another model, or its view is wrong"
        elif source is base:
            advice = "the base must hold all that its sources are measured from, or be seen by a view that leaves it out"
        else:
            advice = f"fix its view, or set partial: true to merge each tensor over the sources that hold it{head_advice(lacking)}"
        holder = next(other.name for other, names in zip(sources, tensors, strict=True) if lacking[0] in names)
        seen = f", seen {described(source)}," if source.view.describe() else ""
        count = f"{len(lacking)} of {len(owed)}"
        raise InputError(f"source '{source.name}'{seen} lacks {count} tensors, e.g. '{lacking[0]}' (which '{holder}' holds); {advice}")


def head_advice(lacking: Sequence[str]) -> str:
    """What else may help where an output head is lacking."""
    if not any(name in HEADS for name in lacking):
        return ""
    return "; a source without an output head ties it to its embedding: merge models that agree on it (tie_word_embeddings in config.json)"


def check_tensor(name: str, sources: Sequence[str], entries: Sequence[TensorEntry]) -> None:
    """Raise InputError unless all sources have this tensor in one shape, and in one dtype or in float dtypes only."""
    for source, entry in zip(sources[1:], entries[1:], strict=True):
        if entry.shape != entries[0].shape:
            raise InputError(
                f"tensor '{name}' has shape {entries[0].shape} in '{sources[0]}' and {entry.shape} in '{source}'; shapes must be equal "
                "(nothing is broadcast or cut): merge checkpoints of one base, or resize this one first"
            )
        if entry.dtype != entries[0].dtype and not (entry.dtype in FLOATS and entries[0].dtype in FLOATS):
            raise InputError(
                f"tensor '{name}' has dtype {entries[0].dtype} in '{sources[0]}' and {entry.dtype} in '{source}'; only "
                f"{', '.join(FLOATS)} may be mixed"
            )


def drop_tied_heads(
    sources: Sequence[Source], tensors: Sequence[dict[str, TensorEntry]], anchor: Source | None = None
) -> tuple[list[dict[str, TensorEntry]], list[tuple[int, TensorEntry, TensorEntry]]]:
    """The tensors without output heads that are tied to the embedding, and (position of source, head, embedding) triples whose bytes must
    prove equal.

    A tied model has one matrix in two roles. Merged apart, the two could differ by then, and loading would untie them with no more than a
    warning. The configs say whether they are tied; where none does, they are if a source has the embedding without a head.
    """
    kept = [dict(found) for found in tensors]
    proofs = []
    ordered = [anchor or anchor_of(sources), *sources]
    tied = next((said for source in ordered if (said := says_tied(source.checkpoint.config)) is not None), None)
    for head, embeddings in HEADS.items():
        holders = [found for found in tensors if head in found]
        embedding = next((name for name in embeddings if holders and all(name in found for found in holders)), None)
        if embedding is None or not (any(embedding in found and head not in found for found in tensors) if tied is None else tied):
            continue
        for position, found in enumerate(kept):
            entry = found.pop(head, None)
            if entry is not None:
                proofs.append((position, entry, same_form(sources[position].name, entry, found[embedding])))
    return kept, proofs


def same_form(source: str, head: TensorEntry, embedding: TensorEntry) -> TensorEntry:
    """`embedding`, if it has the head's shape and dtype; InputError if not."""
    if (head.shape, head.dtype) != (embedding.shape, embedding.dtype):
        raise InputError(
            f"source '{source}': the config ties '{head.name}' {head.shape} {head.dtype} to '{embedding.name}' {embedding.shape} "
            f"{embedding.dtype}, which has another form; set tie_word_embeddings to false in config.json if the two are meant to differ"
        )
    return embedding
