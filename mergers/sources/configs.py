"""Whether configs describe one architecture: whole models with one another, and a part of a model with the part that it is seen as."""

from collections.abc import Mapping, Sequence
from typing import Any

from foundation.errors import InputError
from mergers.sources.names import LANGUAGE_MODEL, OUTPUT_HEAD, VISION_TOWERS, modern, steps_of
from mergers.sources.source import Source, anchor_of
from mergers.sources.views import Prefix

Config = Mapping[str, Any]

ARCHITECTURE = (
    "model_type", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "hidden_activation", "tie_word_embeddings",
    "vision_feature_layer", "vision_feature_select_strategy", "patch_size", "spatial_merge_size",
)  # fmt: skip
"""Config keys that change what the weights mean without changing their shapes. Where two sources both give one, the values must be
equal."""
HARMLESS = ("transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache", "architectures")
"""Keys that say nothing about the weights' meaning."""
TIED = "tie_word_embeddings"
LANGUAGE_MODEL_TYPES = {
    **dict.fromkeys(("qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"), "qwen2"),
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
}
"""model_type of a language model inside a vision-language model -> that of the same model by itself, where the two differ."""


EXPERTS = "experts.json"
"""Says that a checkpoint's model has experts beside it (see `models/experts.py`)."""


def check_configs(sources: Sequence[Source], anchor: Source | None = None) -> list[str]:
    """Raise InputError if a config describes another architecture than the anchor's, or experts lie beside a model.

    Returns a sentence for other values that differ.

    A source that is seen as a part of a model is compared with that part's config: a language model with `text_config`, a vision tower
    with `vision_config`.
    """
    anchor = anchor or anchor_of(sources)
    notes = []
    for source in sources:
        if (source.checkpoint.path / EXPERTS).exists():
            raise InputError(
                f"source '{source.name}' has expert routing: what it learned lies beside the model, in experts.safetensors, and would be "
                "lost in a merge; merge checkpoints that learned in another way"
            )
        known, given = anchor.checkpoint.config, source.checkpoint.config
        if isinstance(source.view, Prefix):
            known = part_of(known, source.view)
        if source is not anchor:
            notes += differences(anchor.name, plain(known), source.name, plain(given))
    return [f"configs differ: {'; '.join(notes[:5])}{'; ...' if len(notes) > 5 else ''}"] if notes else []


def differences(first_name: str, first: Config, other_name: str, other: Config) -> list[str]:
    """The values that differ, in words; InputError if one of them makes two architectures."""
    differing = [key for key in sorted(first.keys() & other.keys()) if first[key] != other[key]]
    spelled = {key: f"{key} is {first[key]!r} in '{first_name}', {other[key]!r} in '{other_name}'" for key in differing}
    fatal = [text for key, text in spelled.items() if key.rpartition(".")[2] in ARCHITECTURE]
    if fatal:
        advice = "merge checkpoints that descend from one base"
        if "model_type" in differing:
            advice += "; a language model is merged into a vision-language model by its view: language_model"
        if TIED in differing:
            advice += "; a tied model has its embedding in place of an output head, so there is no head to merge with the other's"
        raise InputError(f"the sources are not of one architecture: {'; '.join(fatal)}; {advice}")
    return [text for key, text in spelled.items() if key.rpartition(".")[2] not in HARMLESS]


def plain(config: Config) -> dict[str, Any]:
    """A config as dotted key -> value, with one word on tied embeddings, wherever the file says it."""
    flat = {key: value for key, value in flatten(config).items() if key.rpartition(".")[2] != TIED}
    tied = says_tied(config)
    return flat if tied is None else {**flat, TIED: tied}


def flatten(config: Config, prefix: str = "") -> dict[str, Any]:
    """A nested config as dotted key -> value."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found.update(flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return found


def says_tied(config: Config) -> bool | None:
    """Whether a config ties head and embedding: if it says so of the whole or of its language model; None if it does not speak of it."""
    said = [place[TIED] for place in (config, config.get("text_config")) if isinstance(place, Mapping) and place.get(TIED) is not None]
    return any(said) if said else None


def part_of(config: Config, view: Prefix) -> dict[str, Any]:
    """What a model's config says about the part that a view shows, in the words of a model that is that part; {} if that is not known."""
    places = [modern(second, steps_of(config)) for _, second in view.pairs if second is not None]
    if all(place.startswith((LANGUAGE_MODEL, OUTPUT_HEAD)) for place in places):
        inner = config.get("text_config", {key: value for key, value in config.items() if not isinstance(value, Mapping)})
        if not isinstance(inner, Mapping):
            return {}
        tied, kind = says_tied(config), inner.get("model_type")
        told = {"model_type": LANGUAGE_MODEL_TYPES.get(str(kind), kind)} if kind is not None else {}
        return {**inner, **told, **({} if tied is None else {TIED: tied})}
    inner = config.get("vision_config") if all(place.startswith(VISION_TOWERS) for place in places) else None
    return dict(inner) if isinstance(inner, Mapping) else {}
