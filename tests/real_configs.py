"""The config.json of real models, from public knowledge: names and shapes at full size, no weights."""

from typing import Any

QWEN2_7B = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}
LLAMA3_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
SIGLIP_SO400M = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,  # of 27: the seed takes the features of the last layer but one
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}
CLIP_L_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
ROPE = {"type": "mrope", "mrope_section": [16, 24, 24]}
CONFIGS: dict[str, dict[str, Any]] = {
    "llava_onevision": {
        "model_type": "llava_onevision",
        "text_config": QWEN2_7B,
        "vision_config": SIGLIP_SO400M,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    },
    "llava_next": {"model_type": "llava_next", "text_config": LLAMA3_8B, "vision_config": CLIP_L_336, "tie_word_embeddings": False},
    "qwen2_vl": {
        **QWEN2_7B,
        "model_type": "qwen2_vl",
        "rope_scaling": ROPE,
        "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4, "num_heads": 16, "patch_size": 14},
    },
    "qwen2_5_vl": {
        **QWEN2_7B,
        "model_type": "qwen2_5_vl",
        "rope_scaling": ROPE,
        "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584},
    },
}
"""config.json as published, less what has no say in shapes. Those of Qwen-VL hold the language model's values at the top, an old form."""
