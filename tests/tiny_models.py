"""Tiny random models of every family whose parts are known."""

from collections.abc import Callable
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from models.digits_llava import digits_llava

SMALL_TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def tiny_llama(**changes: Any) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**{**SMALL_TEXT, **changes}))


def tiny_qwen2_vl() -> Qwen2VLForConditionalGeneration:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4, "spatial_merge_size": 2}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config={**SMALL_TEXT, "rope_parameters": rope}, vision_config=vision))


def tiny_idefics3() -> Idefics3ForConditionalGeneration:
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    config = Idefics3Config(text_config={**SMALL_TEXT, "model_type": "llama"}, vision_config=vision, scale_factor=2, image_token_id=3)
    return Idefics3ForConditionalGeneration(config)


SMALL_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
QWEN_TOWER = {"depth": 2, "num_heads": 4, "patch_size": 4, "spatial_merge_size": 2}
QWEN_TEXT = {**SMALL_TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}}


def tiny_vlm(family: str, text: str, tower: str, **changes: Any) -> Any:
    """A tiny model of a family that is put together from a tower and a language model."""
    configs = {"text_config": {**SMALL_TEXT, "model_type": text}, "vision_config": {**SMALL_TOWER, "model_type": tower}}
    return AutoModelForImageTextToText.from_config(AutoConfig.for_model(family, **configs, **changes))


def tiny_qwen(family: str, **tower: Any) -> Any:
    """A tiny model of one of the later Qwen-VL families."""
    config = AutoConfig.for_model(family, text_config=QWEN_TEXT, vision_config={**QWEN_TOWER, "hidden_size": 32, **tower})
    return AutoModelForImageTextToText.from_config(config)


def tiny_text(family: str, **changes: Any) -> Any:
    """A tiny causal language model."""
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SMALL_TEXT, **changes}))


def tiny_idefics2() -> Any:
    sizes = {"resampler_n_latents": 2, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 8, "num_key_value_heads": 1}
    return tiny_vlm("idefics2", "mistral", "idefics2_vision", perceiver_config={**sizes, "hidden_size": 32})


TINY: dict[str, Callable[[], Any]] = {
    "llava": lambda: digits_llava(0),
    "llava_next": lambda: tiny_vlm("llava_next", "llama", "clip_vision_model"),
    "llava_onevision": lambda: tiny_vlm("llava_onevision", "qwen2", "siglip_vision_model"),
    "paligemma": lambda: tiny_vlm("paligemma", "gemma", "siglip_vision_model"),
    "internvl": lambda: tiny_vlm("internvl", "qwen2", "internvl_vision", image_seq_length=4),
    "qwen2_vl": tiny_qwen2_vl,
    "qwen2_5_vl": lambda: tiny_qwen("qwen2_5_vl", intermediate_size=48, out_hidden_size=32, fullatt_block_indexes=[1]),
    "qwen3_vl": lambda: tiny_qwen("qwen3_vl", intermediate_size=48, out_hidden_size=32, deepstack_visual_indexes=[0]),
    "idefics2": tiny_idefics2,
    "idefics3": tiny_idefics3,
    "smolvlm": lambda: tiny_vlm("smolvlm", "llama", "smolvlm_vision", scale_factor=2, image_token_id=3),
    "llama": tiny_llama,
    "qwen2": lambda: tiny_text("qwen2"),
    "qwen3": lambda: tiny_text("qwen3", head_dim=8),
    "qwen3_moe": lambda: tiny_text("qwen3_moe", num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16, head_dim=8),
    "phi3": lambda: tiny_text("phi3"),
    "glm": lambda: tiny_text("glm", head_dim=8),
}
