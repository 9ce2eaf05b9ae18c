"""The words that choose parts, read without a model: the seed system's flags, canonical selections, and what is refused."""

import itertools
import re
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import ConfigError
from models.parts import INSIDE, PART_NAMES, SeedFlags, check_rated, parse_parts, parse_selection

LM, TOWER = "mm_language_model_train_", "mm_vision_tower_train_"


def flags(*given: str, **counts: int) -> SeedFlags:
    return SeedFlags(**dict.fromkeys(given, True), **counts)


ARMS: dict[str, tuple[str, SeedFlags, tuple[str, ...]]] = {
    "wise_ft_mlp, mlp, lwf": ("mm_language_model", flags(f"{LM}mlp_only"), ("language_model.mlp",)),
    "wise_ft_full": ("mm_mlp_adapter,mm_language_model", flags(), ("language_model", "projector")),
    "full": ("mm_vision_tower,mm_mlp_adapter,mm_language_model", flags(), ("language_model", "projector", "vision_tower")),
    "llm": ("mm_language_model", flags(), ("language_model",)),
    "mlp_gate_up": ("mm_language_model", flags(f"{LM}mlp_gate_up_only"), ("language_model.mlp_gate_up",)),
    "mlp_down": ("mm_language_model", flags(f"{LM}mlp_down_only"), ("language_model.mlp_down",)),
    "sa_proj": ("mm_language_model", flags(f"{LM}attn_proj_only"), ("language_model.attention",)),
    "sa_qkv": ("mm_language_model", flags(f"{LM}attn_qkv_only"), ("language_model.attention_qkv",)),
    "sa_vo": ("mm_language_model", flags(f"{LM}attn_vo_only"), ("language_model.attention_vo",)),
    "sa_proj_plus_gate_up": (
        "mm_language_model",
        flags(f"{LM}attn_proj_only", f"{LM}mlp_gate_up_only"),
        ("language_model.attention", "language_model.mlp_gate_up"),
    ),
    "sa_qkv_plus_gate_up": (
        "mm_language_model",
        flags(f"{LM}attn_qkv_only", f"{LM}mlp_gate_up_only"),
        ("language_model.attention_qkv", "language_model.mlp_gate_up"),
    ),
    "sa_proj_and_mlp": (
        "mm_language_model",
        flags(f"{LM}attn_proj_only", f"{LM}mlp_only"),
        ("language_model.attention", "language_model.mlp"),
    ),
    "last": ("mm_language_model", flags(mm_language_model_train_last_n_layers=4), ("language_model.last_layers(4)",)),
    "freeze_last": ("mm_language_model", flags(mm_language_model_freeze_last_n_layers=4), ("language_model.all_but_last_layers(4)",)),
    "projector": ("mm_mlp_adapter", flags(), ("projector",)),
    "resampler": ("mm_vision_resampler", flags(), ("resampler",)),
    "vision_tower": ("mm_vision_tower", flags(), ("vision_tower",)),
    "vision_sa_proj": ("mm_vision_tower", flags(f"{TOWER}sa_proj_only"), ("vision_tower.attention",)),
    "vision_sa_qkv": ("mm_vision_tower", flags(f"{TOWER}sa_qkv_only"), ("vision_tower.attention_qkv",)),
    "vision_mlp_up": ("mm_vision_tower", flags(f"{TOWER}mlp_up_only"), ("vision_tower.mlp_up",)),
    "vision_sa_qkv_up": (
        "mm_vision_tower",
        flags(f"{TOWER}sa_qkv_only", f"{TOWER}mlp_up_only"),
        ("vision_tower.attention_qkv", "vision_tower.mlp_up"),
    ),
    "vision+projector": ("mm_vision_tower,mm_mlp_adapter", flags(), ("projector", "vision_tower")),
    "both narrowed": (
        "mm_vision_tower,mm_language_model",
        flags(f"{TOWER}sa_proj_only", f"{LM}mlp_down_only"),
        ("language_model.mlp_down", "vision_tower.attention"),
    ),
}


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_of_the_seed_can_be_said(arm: str) -> None:
    written, given_flags, parts = ARMS[arm]
    assert parse_parts(written, given_flags) == parts
    assert parse_parts(parts) == parts  # canonical selections are words too


@pytest.mark.parametrize(
    ("written", "parts"),
    [
        (" mm_language_model , mm_vision_tower ", ("language_model", "vision_tower")),
        ("language_model.mlp_gate_up,language_model.attention_vo", ("language_model.attention_vo", "language_model.mlp_gate_up")),
        ("language_model.last_layers(2),projector", ("language_model.last_layers(2)", "projector")),
        (r"projector,regex:model\.layers\.\d{1,2}\.mlp\..*", ("projector", r"regex:model\.layers\.\d{1,2}\.mlp\..*")),
        (["glob:lm_head.*", "regex:(a|b),c"], ("glob:lm_head.*", "regex:(a|b),c")),
    ],
)
def test_selections_are_words_too(written: str | list[str], parts: tuple[str, ...]) -> None:
    assert parse_parts(written) == parts


def test_mlp_only_may_be_said_alone() -> None:
    assert parse_parts("mm_mlp_adapter,mm_language_model", mlp_only=True) == ("language_model.mlp", "projector")


@pytest.mark.parametrize(
    ("written", "mlp_only", "message"),
    [
        ("mm_langauge_model", False, "unknown part 'mm_langauge_model'; did you mean 'mm_language_model'"),
        ("language_model.mpl", False, "did you mean 'language_model.mlp'"),
        ("", False, "no part is named"),
        ([], False, "no part is named"),
        ("mm_mlp_adapter", True, "mm_language_model_train_mlp_only narrows mm_language_model"),
        ("mm_mlp_adapter,mm_mlp_adapter", False, "'projector' is named twice"),
        ("mm_language_model,language_model.mlp", False, "'language_model' already holds 'language_model.mlp'"),
        ("language_model.mlp,language_model.mlp_gate_up", False, "'language_model.mlp' already holds"),
        ("mm_language_model,language_model.mlp", True, "'language_model.mlp' is named twice"),
        ("mm_language_model,language_model.last_layers(2)", False, "'language_model' already holds 'language_model.last_layers(2)'"),
        ("language_model.attention_qkv,language_model.attention_vo", False, "weights in common; write language_model.attention for both"),
        ("language_model.last_layers(2),language_model.mlp", False, "have weights in common"),
        ("language_model.last_layers(2),language_model.all_but_last_layers(2)", False, "have weights in common"),
        ("language_model.last_layers(0)", False, "counts no layers"),
        ("language_model.last_layers", False, "counts no layers; write language_model.last_layers(4)"),
        ("glob:", False, "has no pattern"),
        ("regex:(", False, "is no regular expression"),
    ],
)
def test_what_cannot_be_honoured_is_refused(written: str | list[str], mlp_only: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_parts(written, mlp_only=mlp_only)


@pytest.mark.parametrize(
    ("given_flags", "message"),
    [
        (
            {f"{LM}mlp_only", f"{LM}mlp_gate_up_only"},
            f"{LM}mlp_only holds all that {LM}mlp_gate_up_only trains; keep the one that is meant",
        ),
        ({f"{LM}attn_proj_only", f"{LM}attn_qkv_only"}, f"{LM}attn_proj_only holds all that {LM}attn_qkv_only trains"),
        (
            {f"{LM}mlp_gate_up_only", f"{LM}mlp_down_only"},
            "contradict each other; keep one of them, or write mm_tunable_parts: language_model.mlp for both",
        ),
        (
            {f"{LM}attn_qkv_only", f"{LM}attn_vo_only"},
            "contradict each other; keep one of them, or write mm_tunable_parts: language_model.attention for both",
        ),
        ({f"{LM}mlp_only", f"{LM}attn_qkv_only"}, "mm_tunable_parts: language_model.mlp,language_model.attention_qkv"),
        ({f"{LM}mlp_down_only", f"{LM}attn_proj_only"}, "mm_tunable_parts: language_model.mlp_down,language_model.attention"),
        ({f"{TOWER}sa_proj_only", f"{TOWER}sa_qkv_only"}, f"{TOWER}sa_proj_only holds all that {TOWER}sa_qkv_only trains"),
        ({f"{LM}attn_proj_only", f"{LM}attn_qkv_only", f"{LM}mlp_gate_up_only"}, "keep the one that is meant"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(given_flags: set[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        flags(*given_flags)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({f"{LM}last_n_layers": 2, "mm_language_model_freeze_last_n_layers": 2}, "each choose other weights of the language model"),
        ({f"{LM}last_n_layers": 2, f"{LM}mlp_only": True}, f"{LM}last_n_layers and {LM}mlp_only each choose other weights"),
        ({"mm_language_model_freeze_last_n_layers": 0}, "mm_language_model_freeze_last_n_layers is 0; give a count of 1 or more"),
    ],
)
def test_counts_of_layers_stand_alone(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        SeedFlags(**values)


@pytest.mark.parametrize("flag", [item.name for item in fields(SeedFlags)])
def test_a_flag_needs_its_part(flag: str) -> None:
    part = "mm_vision_tower" if "vision" in flag else "mm_language_model"
    given_flags = SeedFlags(**{flag: 2 if "_n_layers" in flag else True})
    with pytest.raises(ConfigError, match=f"{flag} narrows {part}, but mm_tunable_parts names projector; add {part}"):
        parse_parts("mm_mlp_adapter", given_flags)
    (selection,) = parse_parts(part, given_flags)
    assert selection.startswith(part.removeprefix("mm_") + ".")


SWITCHES = [item.name for item in fields(SeedFlags) if "_n_layers" not in item.name]


@given(st.sets(st.sampled_from(SWITCHES)))
def test_no_flag_is_ever_dropped(chosen: set[str]) -> None:
    """Either the flags are refused, or every one of them is a selection of its own among the parts."""
    try:
        parts = parse_parts("mm_vision_tower,mm_language_model", flags(*chosen))
    except ConfigError:
        assert len(chosen) > 1
        return
    untouched = sum(not any(flag.startswith(f"mm_{part}") for flag in chosen) for part in ("vision_tower", "language_model"))
    assert len(parts) == len(chosen) + untouched


def test_selections_of_the_table_read_back() -> None:
    for text in (*PART_NAMES.values(), *INSIDE):
        assert parse_selection(text).text == text
    for first, second in itertools.combinations(INSIDE, 2):
        assert INSIDE[first] != INSIDE[second]


@pytest.mark.parametrize(
    ("rated", "message"),
    [
        (
            ["vision_tower"],
            "learning rates: vision_tower has a rate of its own but is not trained (trained: language_model.mlp, projector)",
        ),
        (["language_model.attention"], "language_model.attention has a rate of its own but is not trained"),
        (["projector", "projector"], "learning rates: part 'projector' is named twice"),
        (["language_model", "language_model.mlp"], "learning rates: 'language_model' already holds 'language_model.mlp'"),
        (["projecter"], "learning rates: unknown part 'projecter'; did you mean 'projector'"),
    ],
)
def test_rates_of_their_own_are_for_trained_parts(rated: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_rated(("language_model.mlp", "projector"), rated)


def test_rates_for_trained_parts_are_taken() -> None:
    check_rated(("language_model.mlp", "projector"), ["projector", "language_model.mlp_down", "glob:lm_head.*"])


def test_parsing_loads_no_torch() -> None:
    code = "import sys, models.parts; print('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
