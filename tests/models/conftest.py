"""Tiny random models of four families, and the demo's own model saved as a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from models.digits_llava import digits_llava, digits_processor
from models.load import save_checkpoint

CORPUS = ["Which digit is shown?", "Where is the digit?", "three", "seven", "top left", "red three, nothing, blue seven, nothing", "4 7"]
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


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def processor() -> Any:
    return digits_processor(CORPUS)


@pytest.fixture(scope="session")
def tiny() -> dict[str, Callable[[], Any]]:
    return {"llava": lambda: digits_llava(0), "qwen2_vl": tiny_qwen2_vl, "idefics3": tiny_idefics3, "llama": tiny_llama}


@pytest.fixture
def checkpoint(tmp_path: Path, processor: Any) -> Path:
    directory = tmp_path / "checkpoint"
    save_checkpoint(digits_llava(0), processor, directory)
    return directory
