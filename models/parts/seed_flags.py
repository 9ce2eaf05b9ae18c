"""The first seed system's words for what is trained: `mm_tunable_parts` and the flags that narrow a part of it.

There, of several flags the first in a fixed order wins and the others do nothing, without a word. Here flags that the seed does combine
are taken together; all others are refused with what to write instead. One difference: `mm_language_model_train_mlp_only` with
`..._train_attn_proj_only` trains both, as the seed's documentation says; its code trained the MLPs alone. And `image_newline`, which it
trained with the language model, belongs to the projector here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations

from foundation.errors import ConfigError
from models.parts.compare import both_at_once, check_apart, holds
from models.parts.selections import ALL_BUT_LAST_LAYERS, LANGUAGE_MODEL, LAST_LAYERS, PART_NAMES, VISION_TOWER, Selection, parse_selection

NARROWS: dict[str, dict[str, str]] = {
    LANGUAGE_MODEL: {
        "mm_language_model_train_mlp_only": "language_model.mlp",
        "mm_language_model_train_mlp_gate_up_only": "language_model.mlp_gate_up",
        "mm_language_model_train_mlp_down_only": "language_model.mlp_down",
        "mm_language_model_train_attn_proj_only": "language_model.attention",
        "mm_language_model_train_attn_qkv_only": "language_model.attention_qkv",
        "mm_language_model_train_attn_vo_only": "language_model.attention_vo",
    },
    VISION_TOWER: {
        "mm_vision_tower_train_sa_proj_only": "vision_tower.attention",
        "mm_vision_tower_train_sa_qkv_only": "vision_tower.attention_qkv",
        "mm_vision_tower_train_mlp_up_only": "vision_tower.mlp_up",
    },
}
"""Part -> the flags that narrow it -> the selection each stands for."""

COUNTS = {
    "mm_language_model_train_last_n_layers": LAST_LAYERS,
    "mm_language_model_freeze_last_n_layers": ALL_BUT_LAST_LAYERS,
}
"""The flags that count layers of the language model."""

COMBINE = {
    frozenset({"language_model.mlp_gate_up", "language_model.attention"}),
    frozenset({"language_model.mlp_gate_up", "language_model.attention_qkv"}),
    frozenset({"language_model.mlp", "language_model.attention"}),
    frozenset({"vision_tower.attention", "vision_tower.mlp_up"}),
    frozenset({"vision_tower.attention_qkv", "vision_tower.mlp_up"}),
}
"""Pairs whose flags are taken together."""


@dataclass(frozen=True)
class SeedFlags:
    """The flags by the seed's names. Raises ConfigError for flags that contradict each other."""

    mm_language_model_train_mlp_only: bool = False
    mm_language_model_train_mlp_gate_up_only: bool = False
    mm_language_model_train_mlp_down_only: bool = False
    mm_language_model_train_attn_proj_only: bool = False
    mm_language_model_train_attn_qkv_only: bool = False
    mm_language_model_train_attn_vo_only: bool = False
    mm_language_model_train_last_n_layers: int | None = None
    mm_language_model_freeze_last_n_layers: int | None = None
    mm_vision_tower_train_sa_proj_only: bool = False
    mm_vision_tower_train_sa_qkv_only: bool = False
    mm_vision_tower_train_mlp_up_only: bool = False

    def __post_init__(self) -> None:
        for flag in COUNTS:
            if (count := getattr(self, flag)) is not None and count < 1:
                raise ConfigError(f"{flag} is {count}; give a count of 1 or more, or leave it out")
        counts = [flag for flag in self.given() if flag in COUNTS]
        others = [flag for flag in self.given() if flag in NARROWS[LANGUAGE_MODEL]]
        if counts and len(counts) + len(others) > 1:
            first, second, *_ = [*counts, *others]
            raise ConfigError(f"{first} and {second} each choose other weights of the language model; keep one of them")
        for flags in NARROWS.values():
            for pair in combinations([flag for flag in self.given() if flag in flags], 2):
                refuse_contradiction(*pair, *(parse_selection(flags[flag]) for flag in pair))

    def given(self) -> list[str]:
        """The names of the flags that are set."""
        return [item.name for item in fields(self) if getattr(self, item.name) not in (None, False)]

    def narrowed(self, part: str) -> list[str]:
        """The selections that the flags put in place of the whole `part`; none where they say nothing about it."""
        counted = [f"{name}({getattr(self, flag)})" for flag, name in COUNTS.items() if getattr(self, flag) is not None]
        chosen = [selection for flag, selection in NARROWS.get(part, {}).items() if getattr(self, flag)]
        return chosen + (counted if part == LANGUAGE_MODEL else [])


def refuse_contradiction(flag: str, other: str, first: Selection, second: Selection) -> None:
    """ConfigError unless two flags that narrow the same part combine."""
    if frozenset({first.text, second.text}) in COMBINE:
        return
    if holds(first, second) or holds(second, first):
        holder, held = (flag, other) if holds(first, second) else (other, flag)
        raise ConfigError(f"{holder} holds all that {held} trains; keep the one that is meant")
    if both := both_at_once(first, second):
        raise ConfigError(f"{flag} and {other} contradict each other; keep one of them, or write mm_tunable_parts: {both} for both")
    raise ConfigError(
        f"{flag} and {other}: each says that only its own weights are trained; to train both, leave the flags out and write "
        f"mm_tunable_parts: {first.text},{second.text}"
    )


def parse_parts(mm_tunable_parts: str | Sequence[str], flags: SeedFlags | None = None, *, mlp_only: bool = False) -> tuple[str, ...]:
    """Canonical selections, sorted, that a configuration names: "mm_mlp_adapter,mm_language_model" -> ("language_model", "projector").

    `flags` narrow the parts they speak of; `mlp_only` is short for `mm_language_model_train_mlp_only`. Patterns (`glob:`,
    `regex:`) may hold commas where the parts are a list; in one string only within brackets. Raises ConfigError for an unknown
    part (with the nearest name), none at all, one named twice, parts with weights in common, and a flag whose part is not named.
    """
    flags = flags or SeedFlags()
    if mlp_only:
        flags = replace(flags, mm_language_model_train_mlp_only=True)
    words = re.split(r",(?![^(\[{]*[)\]}])", mm_tunable_parts) if isinstance(mm_tunable_parts, str) else list(mm_tunable_parts)
    parts = [parse_selection(word.strip()).text for word in words if word.strip()]
    if not parts:
        raise ConfigError(f"mm_tunable_parts: no part is named; name one or more of {', '.join(sorted(PART_NAMES))}")
    for flag in flags.given():
        part = LANGUAGE_MODEL if flag in COUNTS or flag in NARROWS[LANGUAGE_MODEL] else VISION_TOWER
        if part not in parts:
            raise ConfigError(
                f"{flag} narrows mm_{part}, but mm_tunable_parts names {', '.join(parts)}; "
                f"add mm_{part} to mm_tunable_parts, or leave {flag} out"
            )
    parts = sorted(text for part in parts for text in flags.narrowed(part) or [part])
    check_apart([parse_selection(part) for part in parts])
    return tuple(parts)
