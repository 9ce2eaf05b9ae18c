"""Small modality-expert models with no weight at a special value, and inputs for them."""

from typing import Any

import torch
from torch import Tensor

from models.modality_experts import ModalityExpertsModel
from models.modality_experts.config import HEADS
from models.modality_experts.starts import new
from models.modality_experts.tiny import digits_config

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_text_length": 9,
    "heads": list(HEADS),
    "answers": ["no", "yes", "two"],
    "classes": ["cat", "dog"],
    "token_types": 3,
    "layer_scale": 0.7,
}
PADDING = 3


def lively(seed: int = 0, **changes: Any) -> ModalityExpertsModel:
    """A model whose biases, norms, gammas and position table are drawn too, so that a part that is not used is noticed."""
    return stir(new(digits_config(**{**SIZES, **changes}), seed), "", seed, 0.2)


@torch.no_grad()
def stir(model: ModalityExpertsModel, within: str, seed: int = 0, scale: float = 0.3) -> ModalityExpertsModel:
    """Add noise to the parameters whose name contains `within`."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if within in name:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)
    return model


def inputs(batch: int = 2, length: int = 9, side: int = 32) -> dict[str, Tensor]:
    """Texts, the last words of the first one padding, and images."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 50, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, -PADDING:] = 0
    ids[0, -PADDING:] = 0
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.randn(batch, 3, side, side, generator=generator)}


@torch.no_grad()
def everything(model: ModalityExpertsModel) -> dict[str, Tensor]:
    """The states of all paths, and the answers of all heads that the model has."""
    given = inputs(side=model.config.image_size)
    text = {name: given[name] for name in ("input_ids", "attention_mask")}
    states = {f"text {path}": model.text(**text, through=path) for path in ("l", "vl")}
    states.update({f"image {path}": model.image(given["pixel_values"], through=path) for path in ("v", "vl")})
    states["pair"] = model.pair(**given)
    pooled = model.pool(states["pair"])
    answers = {f"{head} logits": model.heads[head](pooled) for head in ("itm", "vqa") if head in model.heads}
    answers.update({f"{head} image": model.heads[head].image(states["image v"]) for head in ("itc", "itc_vl") if head in model.heads})
    if "mlm" in model.heads:
        answers["mlm logits"] = model.heads["mlm"](states["pair"])
    return {**states, **answers}
