"""Named parts of a model: names checked without a model, and the right parameters found in four families."""

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from transformers import BlipConfig

from foundation.errors import ConfigError, InputError
from models.parts import LAYOUTS, layout_of, parse_parts, set_trainable, tunable_parameters

FAMILIES = {
    "llava": {
        "vision_tower": r"model\.vision_tower\.",
        "projector": r"model\.multi_modal_projector\.",
        "language_model": r"model\.language_model\.|lm_head\.",
    },
    "qwen2_vl": {
        "vision_tower": r"model\.visual\.(?!merger\.)",
        "projector": r"model\.visual\.merger\.",
        "language_model": r"model\.language_model\.|lm_head\.",
    },
    "idefics3": {
        "vision_tower": r"model\.vision_model\.",
        "projector": r"model\.connector\.",
        "language_model": r"model\.text_model\.|lm_head\.",
    },
    "llama": {"language_model": ""},
}
Models = dict[str, Callable[[], Any]]


@pytest.mark.parametrize(
    ("written", "mlp_only", "parts"),
    [
        ("mm_mlp_adapter,mm_language_model", False, ("language_model", "projector")),
        (" mm_language_model , mm_vision_tower ", False, ("language_model", "vision_tower")),
        (["mm_language_model"], True, ("language_model.mlp",)),
        ("mm_language_model,mm_mlp_adapter", True, ("language_model.mlp", "projector")),
        ("language_model.attention,language_model.mlp_gate_up", False, ("language_model.attention", "language_model.mlp_gate_up")),
    ],
)
def test_parse(written: str | list[str], mlp_only: bool, parts: tuple[str, ...]) -> None:
    assert parse_parts(written, mlp_only) == parts


@pytest.mark.parametrize(
    ("written", "mlp_only", "message"),
    [
        ("mm_langauge_model", False, "unknown part 'mm_langauge_model'; did you mean 'mm_language_model'"),
        ("", False, "no part is named"),
        ([], False, "no part is named"),
        ("mm_mlp_adapter", True, "mm_language_model_train_mlp_only narrows mm_language_model"),
        ("mm_mlp_adapter,mm_mlp_adapter", False, "'projector' is named twice"),
        ("mm_language_model,language_model.mlp", False, "'language_model' already holds 'language_model.mlp'"),
        ("language_model.mlp,language_model.mlp_gate_up", False, "'language_model.mlp' already holds"),
        ("mm_language_model,language_model.mlp", True, "'language_model.mlp' is named twice"),
    ],
)
def test_what_cannot_be_honoured_is_refused(written: str | list[str], mlp_only: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_parts(written, mlp_only)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_whole_parts_take_every_parameter_once(tiny: Models, family: str) -> None:
    model = tiny[family]()
    names = {name for name, _ in model.named_parameters()}
    found = {part: tunable_parameters(model, [part]) for part in FAMILIES[family]}
    for part, pattern in FAMILIES[family].items():
        assert found[part] == sorted(name for name in names if re.match(pattern, name))
    assert sorted(name for part in found.values() for name in part) == sorted(names)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_parts_inside_the_language_model_leave_the_tower_alone(tiny: Models, family: str) -> None:
    model = tiny[family]()
    layers = model.get_decoder().config.num_hidden_layers
    whole = set(tunable_parameters(model, ["language_model"]))
    mlp = tunable_parameters(model, ["language_model.mlp"])
    assert len(mlp) == 3 * layers
    assert set(mlp) < whole
    assert all(re.search(r"layers\.\d+\.mlp\.(gate|up|down)_proj\.weight$", name) for name in mlp)
    assert set(tunable_parameters(model, ["language_model.mlp_gate_up"])) == {name for name in mlp if "down_proj" not in name}
    attention = tunable_parameters(model, ["language_model.attention"])
    assert set(attention) < whole
    assert all(".self_attn." in name for name in attention)
    without_output = {name for name in attention if "o_proj" not in name}
    assert set(tunable_parameters(model, ["language_model.attention_qkv"])) == without_output


def test_llava_tower_has_mlps_too(tiny: Models) -> None:
    """The reason for anchoring: without it the tower's MLPs would be taken with the language model's."""
    model = tiny["llava"]()
    assert any(".mlp." in name for name in tunable_parameters(model, ["vision_tower"]))
    assert not any("vision_tower" in name for name in tunable_parameters(model, ["language_model.mlp"]))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_set_trainable_freezes_the_rest_and_counts(tiny: Models, family: str) -> None:
    model = tiny[family]()
    counts = set_trainable(model, ["language_model.mlp"])
    chosen = set(tunable_parameters(model, ["language_model.mlp"]))
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == chosen
    assert counts == {"language_model.mlp": sum(weight.numel() for name, weight in model.named_parameters() if name in chosen)}
    whole = set_trainable(model, list(FAMILIES[family]))
    assert sum(whole.values()) == sum(weight.numel() for weight in model.parameters())
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_part_the_model_lacks_is_refused_before_anything_changes(tiny: Models) -> None:
    model = tiny["llama"]()
    with pytest.raises(InputError, match=r"part 'vision_tower' matches no parameter of LlamaForCausalLM.*it has language_model"):
        set_trainable(model, ["language_model", "vision_tower"])
    assert all(weight.requires_grad for weight in model.parameters())


def test_tied_weights_count_once(tiny: Models) -> None:
    model = tiny["llama"]()
    tied = type(model)(type(model.config)(**{**model.config.to_dict(), "tie_word_embeddings": True}))
    assert "lm_head.weight" not in tunable_parameters(tied, ["language_model"])
    assert set_trainable(tied, ["language_model"])["language_model"] == sum(weight.numel() for weight in tied.parameters())


def test_an_unknown_family_with_images_is_refused() -> None:
    class Model:
        config = BlipConfig()

    with pytest.raises(InputError, match=r"parts of model type 'blip' are not known"):
        layout_of(Model())  # type: ignore[arg-type]
    assert "blip" not in LAYOUTS


def test_parsing_loads_no_torch() -> None:
    code = "import sys, models.parts; print('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
