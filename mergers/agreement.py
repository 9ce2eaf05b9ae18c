"""Whether sources can be merged at all: one architecture, the same tensors, the same shapes, dtypes that mix. Decided from headers and
configs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from foundation.errors import ConfigError, InputError
from mergers.header import FLOATS, TensorEntry
from mergers.view import Source

ARCHITECTURE = (
    "model_type", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "hidden_activation", "tie_word_embeddings",
    "vision_feature_layer", "vision_feature_select_strategy", "patch_size", "spatial_merge_size",
)  # fmt: skip
"""Config keys that change what the weights mean without changing their shapes. Where two sources both give one, the values must be
equal."""

HEADS = {
    "lm_head.weight": ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight", "model.text_model.embed_tokens.weight"),
    "language_model.lm_head.weight": ("language_model.model.embed_tokens.weight",),
}
"""Name of an output head -> names of the embedding it is tied to, in models that tie them."""


def check_names(names: Sequence[str]) -> None:
    """Raise ConfigError if two sources have one name."""
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{names.count(name)} sources are named '{name}'; give each its own name")


def check_configs(sources: Sequence[Source]) -> list[str]:
    """Raise InputError if two configs describe different architectures; return a sentence for other values in which they differ."""
    first = flatten(sources[0].checkpoint.config)
    notes = []
    for source in sources[1:]:
        other = flatten(source.checkpoint.config)
        differing = [key for key in sorted(first.keys() & other.keys()) if first[key] != other[key]]
        spelled = [f"{key} is {first[key]!r} in '{sources[0].name}', {other[key]!r} in '{source.name}'" for key in differing]
        fatal = [text for key, text in zip(differing, spelled, strict=True) if key.rpartition(".")[2] in ARCHITECTURE]
        if fatal:
            raise InputError(f"the sources are not of one architecture: {'; '.join(fatal)}; merge checkpoints that descend from one base")
        harmless = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache")
        notes += [text for key, text in zip(differing, spelled, strict=True) if key.rpartition(".")[2] not in harmless]
    return [f"configs differ: {'; '.join(notes[:5])}{'; ...' if len(notes) > 5 else ''}"] if notes else []


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as dotted key -> value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found.update(flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return found


def check_cover(sources: Sequence[Source], tensors: Sequence[Mapping[str, TensorEntry]], partial: bool) -> None:
    """Raise InputError if a source lacks tensors that another holds, unless the merge is partial and it shares at least one with
    another."""
    union = sorted(set().union(*tensors))
    holders = Counter(name for held in tensors for name in held)
    for source, held in zip(sources, tensors, strict=True):
        lacking = [name for name in union if name not in held]
        shares = any(holders[name] > 1 for name in held)
        if lacking and not (partial and shares):
            holder = next(other.name for other, names in zip(sources, tensors, strict=True) if lacking[0] in names)
            advice = "; fix its view, or set partial: true to merge each tensor over the sources that hold it" if shares else ""
            alone = "" if shares else "; it has none in common with the others: it is another model, or its view is wrong"
            raise InputError(
                f"source '{source.name}' lacks {len(lacking)} of {len(union)} tensors, e.g. '{lacking[0]}' (which '{holder}' "
                f"holds){advice}{alone}"
            )


def check_tensor(name: str, sources: Sequence[str], entries: Sequence[TensorEntry]) -> None:
    """Raise InputError unless all sources have this tensor in one shape, and in one dtype or in float dtypes only."""
    for source, entry in zip(sources[1:], entries[1:], strict=True):
        if entry.shape != entries[0].shape:
            raise InputError(
                f"tensor '{name}' has shape {entries[0].shape} in '{sources[0]}' and {entry.shape} in '{source}'; shapes must be equal "
                "(nothing is broadcast "
                "or cut): merge checkpoints of one base, or resize this one first"
            )
        if entry.dtype != entries[0].dtype and not (entry.dtype in FLOATS and entries[0].dtype in FLOATS):
            raise InputError(
                f"tensor '{name}' has dtype {entries[0].dtype} in '{sources[0]}' and {entry.dtype} in '{source}'; only "
                f"{', '.join(FLOATS)} may be mixed"
            )


def drop_tied_heads(
    sources: Sequence[Source], tensors: Sequence[dict[str, TensorEntry]]
) -> tuple[list[dict[str, TensorEntry]], list[tuple[int, TensorEntry, TensorEntry]]]:
    """The tensors without output heads that are tied to the embedding, and (position of source, head, embedding) triples whose bytes must
    prove equal.

    A tied model has one matrix in two roles. Merged apart, the two could differ by then, and loading would untie them with no more than a
    warning.
    """
    kept = [dict(found) for found in tensors]
    proofs = []
    for head, embeddings in HEADS.items():
        embedding = next((name for name in embeddings if all(name in found for found in tensors)), None)
        holders = [found for found in tensors if head in found]
        if embedding is None or not holders or not ties(sources[0].checkpoint.config, some_lack=len(holders) < len(tensors)):
            continue
        for position, found in enumerate(kept):
            entry = found.pop(head, None)
            if entry is not None:
                proofs.append((position, entry, same_form(sources[position].name, entry, found[embedding])))
    return kept, proofs


def ties(config: Mapping[str, Any], some_lack: bool) -> bool:
    """Whether a config ties head and embedding; where it does not say, whether a source does without the head."""
    text = config.get("text_config")
    said = config.get("tie_word_embeddings", text.get("tie_word_embeddings") if isinstance(text, Mapping) else None)
    return some_lack if said is None else bool(said)


def same_form(source: str, head: TensorEntry, embedding: TensorEntry) -> TensorEntry:
    """`embedding`, if it has the head's shape and dtype; InputError if not."""
    if (head.shape, head.dtype) != (embedding.shape, embedding.dtype):
        raise InputError(
            f"source '{source}': the config ties '{head.name}' {head.shape} {head.dtype} to '{embedding.name}' {embedding.shape} "
            f"{embedding.dtype}, which "
            "has another form; set tie_word_embeddings to false in config.json if the two are meant to differ"
        )
    return embedding
