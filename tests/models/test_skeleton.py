"""Counting what learns from a config.json alone, at the real sizes of the models the seed system was run on."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from real_configs import CLIP_L_336, CONFIGS, LLAMA3_8B, SIGLIP_SO400M

from foundation.errors import InputError
from models.load import load_model
from models.skeleton import PartCounts, count_parameters, part_counts, skeleton

TOTALS = {
    "llava_onevision": 8_030_348_832,  # this and the next are summed from shapes in test_totals_by_hand
    "llava_next": 8_354_752_512,
    "qwen2_vl": 8_291_375_616,  # this and the next are half the bytes (bfloat16) of the published files
    "qwen2_5_vl": 8_292_166_656,
}
QWEN2_7B_PARTS = {
    "language_model.mlp": 5_703_204_864,
    "language_model.mlp_gate_up": 3_802_136_576,
    "language_model.mlp_down": 1_901_068_288,
    "language_model.attention": 822_083_584 + 129_024,  # weights and biases
}


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """A directory that holds nothing but the config.json of a family."""

    def write(family: str) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(CONFIGS[family]))
        return tmp_path

    return write


@pytest.mark.parametrize("family", CONFIGS)
def test_real_sizes_without_weights(written: Any, family: str) -> None:
    model = skeleton(written(family))
    assert {weight.device.type for weight in model.parameters()} == {"meta"}
    for part, count in QWEN2_7B_PARTS.items():
        if family != "llava_next":
            counts = part_counts(model, [part])
            assert (counts.learned[part], counts.trained, counts.total) == (count, count, TOTALS[family]), part
    whole = part_counts(model, ["vision_tower", "projector", "language_model"])
    assert whole.trained == whole.total == TOTALS[family]


def test_the_dtype_is_the_configs(written: Any) -> None:
    assert {weight.dtype for weight in skeleton(written("llava_onevision")).parameters()} == {torch.bfloat16}


def linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return inputs * outputs + bias * outputs


def language(config: dict[str, Any], bias: bool) -> int:
    """Weights of a Qwen2 or Llama: embeddings and head, layers (q, k, v, o, three MLP maps, two norms), the last norm."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    keys = hidden // heads * config["num_key_value_heads"]
    attention = linear(hidden, hidden, bias) + 2 * linear(hidden, keys, bias) + linear(hidden, hidden, False)
    layer = attention + 3 * hidden * config["intermediate_size"] + 2 * hidden
    return 2 * config["vocab_size"] * hidden + config["num_hidden_layers"] * layer + hidden


def tower(config: dict[str, Any], clip: bool) -> int:
    """Weights of a SigLIP or CLIP tower. CLIP has a class token with its position, no bias at the patches, and a norm before the layers."""
    hidden, patches = config["hidden_size"], (config["image_size"] // config["patch_size"]) ** 2
    layer = (
        4 * linear(hidden, hidden) + linear(hidden, config["intermediate_size"]) + linear(config["intermediate_size"], hidden) + 4 * hidden
    )
    embeddings = linear(3 * config["patch_size"] ** 2, hidden, bias=not clip) + patches * hidden + clip * 2 * hidden
    return embeddings + config["num_hidden_layers"] * layer + (4 if clip else 2) * hidden


def test_totals_by_hand() -> None:
    """The sums for the two LLaVAs, from the layers' shapes: tower, two linear maps with biases, `image_newline`, language model."""
    ours = CONFIGS["llava_onevision"]
    onevision = tower(SIGLIP_SO400M, clip=False) + linear(1152, 3584) + linear(3584, 3584) + 3584 + language(ours["text_config"], bias=True)
    following = tower(CLIP_L_336, clip=True) + linear(1024, 4096) + linear(4096, 4096) + 4096 + language(LLAMA3_8B, bias=False)
    assert {"llava_onevision": onevision, "llava_next": following} == {name: TOTALS[name] for name in ("llava_onevision", "llava_next")}


def test_llama3_layers_count_as_their_shapes(written: Any) -> None:
    place = written("llava_next")
    assert count_parameters(place, ["language_model.mlp"]).trained == 32 * 3 * 4096 * 14336
    assert count_parameters(place, ["language_model.attention_vo"]).trained == 32 * (4096 * 1024 + 4096 * 4096)
    layer = 3 * 4096 * 14336 + 2 * 4096 * 4096 + 2 * 4096 * 1024 + 2 * 4096
    assert count_parameters(place, ["language_model.last_layers(4)"]).trained == 4 * layer + 2 * 128256 * 4096 + 4096


def test_a_checkpoint_is_counted_as_its_model(checkpoint: Path) -> None:
    model = load_model(checkpoint)
    counts = count_parameters(checkpoint, ["language_model.mlp", "projector"])
    assert counts == part_counts(model, ["language_model.mlp", "projector"])
    assert counts == PartCounts(counts.learned, sum(weight.numel() for weight in model.parameters()))
    light = {name: (weight.shape, weight.dtype) for name, weight in skeleton(checkpoint).named_parameters()}
    assert light == {name: (weight.shape, weight.dtype) for name, weight in model.named_parameters()}


def test_a_checkpoint_whose_tensors_do_not_fit_is_refused(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["text_config"]["intermediate_size"] += 8
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InputError, match=r"the tensors do not fit LlavaForConditionalGeneration: \d+ mismatched, e.g. 'model.language_model"
    ):
        skeleton(checkpoint)


def test_a_part_that_the_model_lacks_is_refused(written: Any) -> None:
    with pytest.raises(InputError, match=r"has no resampler"):
        count_parameters(written("qwen2_vl"), ["resampler"])


def test_a_config_that_makes_no_model_is_refused(tmp_path: Path) -> None:
    broken = {**CONFIGS["llava_onevision"], "vision_config": {**SIGLIP_SO400M, "num_attention_heads": 15}}
    (tmp_path / "config.json").write_text(json.dumps(broken))
    with pytest.raises(InputError, match=r"no model can be made from its config\.json: .*1152"):
        skeleton(tmp_path)
