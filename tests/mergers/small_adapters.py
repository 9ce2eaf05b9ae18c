"""A small base and LoRA adapters on it, as PEFT writes them."""

import json

import torch
from safetensors.torch import save_file

from mergers.checkpoints.adapters import open_adapter
from mergers.checkpoints.checkpoint import read_checkpoint

HIDDEN, WIDE, VOCABULARY = 8, 12, 20
Q, DOWN, NORM = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj", "model.layers.0.input_layernorm"
BASE = {
    "model.embed_tokens.weight": (VOCABULARY, HIDDEN), "lm_head.weight": (VOCABULARY, HIDDEN), f"{Q}.weight": (HIDDEN, HIDDEN),
    f"{Q}.bias": (HIDDEN,), f"{DOWN}.weight": (HIDDEN, WIDE), f"{NORM}.weight": (HIDDEN,), "model.conv.weight": (4, 3, 2, 2),
}  # fmt: skip
PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "lora_dropout": 0.1, "target_modules": ["q_proj"], "megatron_core": "megatron.core"}


def random(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pair(module, out, inner, rank=2, seed=50):
    return {f"{module}.lora_A.weight": random((rank, inner), seed), f"{module}.lora_B.weight": random((out, rank), seed + 1)}


class Room:
    """A base in bfloat16, and adapters on it."""

    def __init__(self, bench):
        self.bench = bench
        self.base = {name: random(shape, seed).bfloat16() for seed, (name, shape) in enumerate(BASE.items())}
        self.path = bench.save("base", self.base)

    def adapter(self, tensors, name="adapter", **config):
        path = self.bench.root / name
        path.mkdir(exist_ok=True)
        (path / "adapter_config.json").write_text(json.dumps(PLAIN | {"base_model_name_or_path": str(self.path)} | config))
        save_file({f"base_model.model.{key}": value.contiguous() for key, value in tensors.items()}, path / "adapter_model.safetensors")
        return path

    def open(self, tensors, **config):
        return open_adapter(self.adapter(tensors, **config), read_checkpoint(self.path))
