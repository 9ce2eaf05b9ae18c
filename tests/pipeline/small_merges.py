"""What the tests of merges share: small Llama-shaped checkpoints made without transformers, and a merge file."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

LAYERS = 3
PARTS = {"self_attn.q_proj": (8, 8), "mlp.up_proj": (12, 8), "mlp.down_proj": (8, 12)}
SHAPES = {"model.embed_tokens.weight": (16, 8), "model.norm.weight": (8,), "lm_head.weight": (16, 8)} | {
    f"model.layers.{layer}.{part}.weight": shape for layer in range(LAYERS) for part, shape in PARTS.items()
}
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": LAYERS,
    "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 16, "tie_word_embeddings": False,
}  # fmt: skip

MERGE = """\
method: ties
base: base
sources:
  math: a
  code: {checkpoint: b}
density: 0.2
scale: 1.5
"""


def save_random(path: Path, seed: int, dtype: torch.dtype = torch.float32) -> Path:
    """A checkpoint of random weights."""
    generator = torch.Generator().manual_seed(seed)
    return save(path, {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()})


def save(path: Path, tensors: dict[str, Tensor]) -> Path:
    """A checkpoint of these tensors."""
    path.mkdir(parents=True)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path


def load(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint."""
    return {name: tensor for file in sorted(path.glob("*.safetensors")) for name, tensor in load_file(file).items()}
