"""Named parts found in models in memory: for every family the parameters that a list written by hand says, and nothing else."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, BlipConfig

from foundation.errors import InputError
from models.parts import (
    INSIDE,
    LAYOUTS,
    PART_NAMES,
    check_trainable,
    layout_of,
    parameters_of,
    plain_name,
    selected,
    set_trainable,
    tunable_parameters,
)

Models = dict[str, Callable[[], Any]]

LLAVA_PARTS = {
    "vision_tower": r"model\.vision_tower\..*",
    "projector": r"model\.multi_modal_projector\..*|model\.image_newline",
    "language_model": r"model\.language_model\..*|lm_head\..*",
}
QWEN_PARTS = {
    "vision_tower": r"model\.visual\.(patch_embed|pos_embed|blocks)\..*",
    "projector": r"model\.visual\.(merger|deepstack_merger_list)\..*",
    "language_model": r"model\.language_model\..*|lm_head\..*",
}
IDEFICS_PARTS = {
    "vision_tower": r"model\.vision_model\..*",
    "projector": r"model\.connector\.modality_projection\..*",
    "language_model": r"model\.text_model\..*|lm_head\..*",
}
CLIP_TOWER = {
    "vision_tower.attention": r".*\.encoder\.layers\.\d+\.self_attn\.(q|k|v|out)_proj\.(weight|bias)",
    "vision_tower.attention_qkv": r".*\.encoder\.layers\.\d+\.self_attn\.(q|k|v)_proj\.(weight|bias)",
    "vision_tower.mlp": r".*\.encoder\.layers\.\d+\.mlp\.fc[12]\.(weight|bias)",
    "vision_tower.mlp_up": r".*\.encoder\.layers\.\d+\.mlp\.fc1\.(weight|bias)",
}
INTERN_TOWER = {
    "vision_tower.attention": r".*\.encoder\.layer\.\d+\.attention\.(q_proj|k_proj|v_proj|projection_layer)\.(weight|bias)",
    "vision_tower.attention_qkv": r".*\.encoder\.layer\.\d+\.attention\.(q|k|v)_proj\.weight",
    "vision_tower.mlp": r".*\.encoder\.layer\.\d+\.mlp\.fc[12]\.(weight|bias)",
    "vision_tower.mlp_up": r".*\.encoder\.layer\.\d+\.mlp\.fc1\.(weight|bias)",
}


def qwen_tower(mlp: str, up: str) -> dict[str, str]:
    blocks = r"model\.visual\.blocks\.\d+\."
    return {
        "vision_tower.attention": rf"{blocks}attn\.(qkv|proj)\.(weight|bias)",
        "vision_tower.attention_qkv": rf"{blocks}attn\.qkv\.(weight|bias)",
        "vision_tower.mlp": rf"{blocks}mlp\.({mlp})\.(weight|bias)",
        "vision_tower.mlp_up": rf"{blocks}mlp\.({up})\.(weight|bias)",
    }


def decoder(prefix: str, qkv: str = "q_proj|k_proj|v_proj", gate_up: str = r"gate_proj\.weight|up_proj\.weight") -> dict[str, str]:
    layers = prefix + r"layers\.\d+\."
    expected = {
        "language_model.mlp": rf"{layers}mlp\.({gate_up}|down_proj\.weight)",
        "language_model.mlp_gate_up": rf"{layers}mlp\.({gate_up})",
        "language_model.mlp_down": rf"{layers}mlp\.down_proj\.weight",
        "language_model.attention": rf"{layers}self_attn\.({qkv}|o_proj)\.(weight|bias)",
        "language_model.attention_qkv": rf"{layers}self_attn\.({qkv})\.(weight|bias)",
        "language_model.attention_vo": rf"{layers}self_attn\.(v_proj|o_proj)\.(weight|bias)",
    }
    return {part: pattern for part, pattern in expected.items() if "v_proj" in qkv.split("|") or part != "language_model.attention_vo"}


MOE_LAYERS = r"model\.layers\.\d+\.mlp\."
LM = decoder(r"model\.language_model\.")
TEXT = {"language_model": ".*"}
EXPECTED = {
    "llava": {**LLAVA_PARTS, **CLIP_TOWER, **LM},
    "llava_next": {**LLAVA_PARTS, **CLIP_TOWER, **LM},
    "llava_onevision": {**LLAVA_PARTS, **CLIP_TOWER, **LM},
    "paligemma": {**LLAVA_PARTS, **CLIP_TOWER, **LM},
    "internvl": {**LLAVA_PARTS, **INTERN_TOWER, **LM},
    "qwen2_vl": {**QWEN_PARTS, **qwen_tower("fc1|fc2", "fc1"), **LM},
    "qwen2_5_vl": {**QWEN_PARTS, **qwen_tower("gate_proj|up_proj|down_proj", "gate_proj|up_proj"), **LM},
    "qwen3_vl": {**QWEN_PARTS, **qwen_tower("linear_fc1|linear_fc2", "linear_fc1"), **LM},
    "idefics2": {**IDEFICS_PARTS, "resampler": r".*perceiver_resampler\..*", **CLIP_TOWER, **decoder(r"model\.text_model\.")},
    "idefics3": {**IDEFICS_PARTS, **CLIP_TOWER, **decoder(r"model\.text_model\.")},
    "smolvlm": {**IDEFICS_PARTS, **CLIP_TOWER, **decoder(r"model\.text_model\.")},
    "llama": {**TEXT, **decoder(r"model\.")},
    "qwen2": {**TEXT, **decoder(r"model\.")},
    "qwen3": {**TEXT, **decoder(r"model\.")},
    "phi3": {**TEXT, **decoder(r"model\.", "qkv_proj", r"gate_up_proj\.weight")},
    "glm": {**TEXT, **decoder(r"model\.", gate_up=r"gate_up_proj\.weight")},
    "qwen3_moe": {
        **TEXT,
        **decoder(r"model\."),
        "language_model.mlp": rf"{MOE_LAYERS}(gate\.weight|experts\.(gate_up_proj|down_proj))",
        "language_model.mlp_gate_up": rf"{MOE_LAYERS}experts\.gate_up_proj",
        "language_model.mlp_down": rf"{MOE_LAYERS}experts\.down_proj",
    },
}
"""Family -> selection -> full names, as a pattern that knows nothing of the code under test. A selection that is not there is refused."""

FAMILIES = sorted(EXPECTED)
WHOLE = tuple(PART_NAMES.values())


@pytest.fixture(scope="module")
def models(tiny: Models) -> dict[str, Any]:
    """Every family's tiny model, made once; these tests change nothing but `requires_grad`."""
    return {family: tiny[family]() for family in FAMILIES}


def names_in(model: Any) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def test_every_family_of_the_table_is_tried() -> None:
    assert set(LAYOUTS) <= set(EXPECTED)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_selection_takes_what_the_list_says(models: dict[str, Any], family: str) -> None:
    model = models[family]
    for part in (*WHOLE, *INSIDE):
        pattern = EXPECTED[family].get(part)
        if pattern is None:
            with pytest.raises(InputError, match=re.escape(repr(part))):
                parameters_of(model, part)
        else:
            expected = sorted(name for name in names_in(model) if re.fullmatch(pattern, name))
            assert expected, f"the list of {family} is wrong about {part}"
            assert parameters_of(model, part) == expected, (family, part)


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_are_apart_and_make_up_the_whole(models: dict[str, Any], family: str) -> None:
    """Whole parts cut the model; MLP, attention and the rest cut the language model; last and first layers meet outside the layers."""
    model = models[family]
    found = {part: set(parameters_of(model, part)) for part in EXPECTED[family]}
    whole = [found[part] for part in WHOLE if part in found]
    assert sorted(name for part in whole for name in part) == sorted(names_in(model))
    language = found["language_model"]
    assert not found["language_model.mlp"] & found["language_model.attention"]
    rest = language - found["language_model.mlp"] - found["language_model.attention"]
    assert all("norm" in name or "embed_tokens" in name or name.startswith("lm_head") for name in rest)
    last, before = (set(parameters_of(model, f"language_model.{which}(1)")) for which in ("last_layers", "all_but_last_layers"))
    assert last | before == language
    assert last & before == {name for name in language if ".layers." not in name}
    assert {int(re.search(r"\.layers\.(\d+)\.", name)[1]) for name in last - before} == {len(layers_of(model)) - 1}  # type: ignore[index]
    gate_up, down = found["language_model.mlp_gate_up"], found["language_model.mlp_down"]
    assert not gate_up & down
    assert gate_up | down == {name for name in found["language_model.mlp"] if not name.endswith(".mlp.gate.weight")}  # a router


def layers_of(model: Any) -> Any:
    return getattr(model, "get_decoder", lambda: model.model)().layers


@given(count=st.integers(1, 3), inside=st.sampled_from(sorted(INSIDE)))
def test_layers_and_blocks_count_as_the_shapes_say(models: dict[str, Any], count: int, inside: str) -> None:
    """On the digits model of 3 layers: layers are alike, so each selection's weights are that many times one layer's."""
    model = models["llava"]
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    layer = sum(size for name, size in sizes.items() if ".language_model.layers.0." in name)
    outside = sum(sizes[name] for name in parameters_of(model, "language_model") if ".layers." not in name)
    assert sum(sizes[name] for name in parameters_of(model, f"language_model.last_layers({count})")) == outside + count * layer
    assert (
        sum(sizes[name] for name in parameters_of(model, f"language_model.all_but_last_layers({count})")) == outside + (3 - count) * layer
    )
    assert set_trainable(model, [inside]) == {inside: sum(sizes[name] for name in parameters_of(model, inside))}


@pytest.mark.parametrize("family", FAMILIES)
def test_set_trainable_freezes_the_rest_and_counts(models: dict[str, Any], family: str) -> None:
    model = models[family]
    chosen = set(parameters_of(model, "language_model.mlp"))
    counts = set_trainable(model, ["language_model.mlp"])
    assert {name for name, weight in model.named_parameters() if weight.requires_grad} == chosen
    assert counts == {"language_model.mlp": sum(weight.numel() for name, weight in model.named_parameters() if name in chosen)}
    check_trainable(model, ["language_model.mlp"])
    with pytest.raises(InputError, match=r"should learn but frozen, e.g.*should be frozen but learning|should learn but frozen"):
        check_trainable(model, ["language_model"])
    whole = set_trainable(model, [part for part in WHOLE if part in EXPECTED[family]])
    assert sum(whole.values()) == sum(weight.numel() for weight in model.parameters())
    with pytest.raises(InputError, match="should be frozen but learning"):
        check_trainable(model, ["language_model.mlp"])


def test_llava_tower_has_mlps_too(models: dict[str, Any]) -> None:
    """The reason for anchoring: without it the tower's MLPs would be taken with the language model's."""
    assert any(".mlp." in name for name in tunable_parameters(models["llava"], ["vision_tower"]))
    assert any(".mlp.gate_proj." in name for name in tunable_parameters(models["qwen2_5_vl"], ["vision_tower"]))


@pytest.mark.parametrize(
    ("family", "parts", "message"),
    [
        (
            "llama",
            ["language_model", "vision_tower"],
            r"part 'vision_tower' matches no parameter of LlamaForCausalLM.*it has language_model",
        ),
        ("llava", ["resampler"], r"LlavaForConditionalGeneration \(llava\) has no resampler; .*idefics2"),
        ("llava", ["language_model.last_layers(4)"], "has 3 numbered layers"),
        ("llava", ["language_model.mlp", "regex:.*down_proj.*"], r"have 3 parameters of .* in common, e.g. 'model.language_model.layers.0"),
        ("llava", ["language_model.mlp", "language_model.last_layers(1)"], "have 3 parameters of .* in common"),
        (
            "phi3",
            ["language_model.attention_vo"],
            r"wants v, o, but Phi3.* holds q, k, v in one tensor, 'model.layers.0.self_attn.qkv_proj",
        ),
        ("qwen2", ["glob:model.layers.*.mlp.gate.weight"], r"names in memory .* such as 'model.layers.0.mlp.gate_proj.weight'"),
        ("qwen2_vl", ["glob:model.layers.*.mlp.down_proj.weight"], "'model.language_model.layers.0.mlp.down_proj.weight'"),
        ("paligemma", ["glob:lm_head.*"], "'lm_head.weight' .* is tied to 'model.language_model.embed_tokens.weight'"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_anything_changes(
    models: dict[str, Any], family: str, parts: list[str], message: str
) -> None:
    model = models[family].requires_grad_(True)
    with pytest.raises(InputError, match=message):
        set_trainable(model, parts)
    assert all(weight.requires_grad for weight in model.parameters())


def test_patterns_match_whole_names(models: dict[str, Any]) -> None:
    model = models["llama"]
    assert parameters_of(model, "glob:model.layers.0.mlp.*") == parameters_of(model, r"regex:model\.layers\.0\.mlp\..*")
    assert parameters_of(model, "glob:lm_head.weight") == ["lm_head.weight"]
    with pytest.raises(InputError, match="matches no parameter"):
        parameters_of(model, "regex:mlp")


def test_a_layer_whose_block_goes_by_another_name_is_not_passed_over() -> None:
    """Of GPT-NeoX's kind of names none is known; in a mixed model the layers that have another block must not stay frozen silently."""
    text = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen2", **text))
    layer = model.model.layers[1]
    layer.linear_attn = layer.self_attn
    del layer.self_attn
    with pytest.raises(InputError, match=r"layer 1 of Qwen2ForCausalLM \(qwen2\) has no attention by a name that is known"):
        parameters_of(model, "language_model.attention")
    layer.self_attn = layer.linear_attn
    del layer.linear_attn
    layer.self_attn.kv_a_proj = torch.nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"what 'model.layers.1.self_attn.kv_a_proj.weight' .* does in its attention is not known"):
        parameters_of(model, "language_model.attention")


def test_tied_weights_count_once(tiny: Models) -> None:
    model = tiny["llama"]()
    tied = type(model)(type(model.config)(**{**model.config.to_dict(), "tie_word_embeddings": True}))
    assert "lm_head.weight" not in tunable_parameters(tied, ["language_model"])
    assert set_trainable(tied, ["language_model"])["language_model"] == sum(weight.numel() for weight in tied.parameters())
    assert set_trainable(tied, ["language_model.last_layers(1)"])  # with the embeddings, which are the head
    assert tied.lm_head.weight.requires_grad


def test_wrapped_models_are_looked_into(models: dict[str, Any]) -> None:
    plain = models["qwen2"]
    wrapped = torch.compile(plain)
    found = selected(wrapped, ["language_model.mlp"])["language_model.mlp"]
    assert [plain_name(name) for name in found] == parameters_of(plain, "language_model.mlp")
    assert found[0].startswith("_orig_mod.")
    parallel = torch.nn.DataParallel(plain)
    assert parameters_of(parallel, "language_model.mlp") == [f"module.{name}" for name in parameters_of(plain, "language_model.mlp")]


def test_adapters_count_as_what_they_adapt(tiny: Models) -> None:
    model = get_peft_model(tiny["llama"](), LoraConfig(r=2, target_modules=["gate_proj", "q_proj"], modules_to_save=["lm_head"]))
    gates = selected(model, ["language_model.mlp_gate_up"])["language_model.mlp_gate_up"]
    assert [name for name in gates if "lora_" in name] == [name for name in names_in(model) if "gate_proj.lora_" in name]
    assert plain_name("module.base_model.model.model.layers.0.mlp.gate_proj.lora_A.default.weight") == "model.layers.0.mlp.gate_proj.weight"
    assert plain_name("base_model.model.model.layers.0.mlp.gate_proj.base_layer.bias") == "model.layers.0.mlp.gate_proj.bias"
    heads = selected(model, ["glob:lm_head.weight"])["glob:lm_head.weight"]
    assert heads == sorted(name for name in names_in(model) if "lm_head" in name)
    assert len(heads) == 2


def test_an_unknown_family_with_images_is_refused() -> None:
    with pytest.raises(InputError, match=r"parts of model type 'blip' are not known"):
        layout_of(SimpleNamespace(config=BlipConfig()))  # type: ignore[arg-type]
    assert "blip" not in LAYOUTS
