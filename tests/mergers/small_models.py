"""Small random models for the merge tests, and how to see a tensor's bytes."""

import torch
from torch import Tensor

SHAPES = {"model.embed.weight": (50, 8), "model.layers.0.w": (33, 7), "model.layers.1.w": (129, 3), "model.norm": (8,), "scalar": ()}


def random_tensors(seed: int, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    """A model of five tensors, 1,027 parameters."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}


def bits(tensor: Tensor) -> bytes:
    """A tensor's bytes."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
