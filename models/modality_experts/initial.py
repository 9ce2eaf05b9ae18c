"""The weights a model starts with, as BEiT's (arXiv 2106.08254)."""

from collections.abc import Iterable

import torch
from torch import nn
from transformers import initialization as init

from models.modality_experts.embeddings import Embeddings


@torch.no_grad()
def draw_weights(module: nn.Module, spread: float) -> None:
    """Truncated normal weights and zero biases, as BEiT, for one module. transformers' own functions: they leave loaded weights alone."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
        init.trunc_normal_(module.weight, std=spread)
        if getattr(module, "bias", None) is not None:
            init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, Embeddings):
        init.trunc_normal_(module.cls, std=spread)
        if module.mask_patch is not None:
            init.trunc_normal_(module.mask_patch, std=spread)


@torch.no_grad()
def scale_by_depth(layers: Iterable[nn.Module]) -> None:
    """Divide what each layer adds to the stream by sqrt(2 (layer + 1)). Loading overwrites it."""
    for number, layer in enumerate(layers):
        for name, parameter in layer.named_parameters():
            if name.endswith(("proj.weight", "fc2.weight")):
                parameter.div_((2 * (number + 1)) ** 0.5)
