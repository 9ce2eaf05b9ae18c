"""Texts and images as tokens: word pieces looked up, patches projected, each with its type."""

import torch
from torch import Tensor, nn

from models.modality_experts.config import ModalityExpertsConfig
from models.modality_experts.layers import norm

TEXT_TYPE, IMAGE_TYPE, SECOND_IMAGE_TYPE = 0, 1, 2
"""Rows of the type table. The last is for the second of two images that are compared; a model that compares none need not have it."""


class Embeddings(nn.Module):
    """Texts and images as tokens, each with a row of the type table added. Positions are not embedded: the biases carry them."""

    def __init__(self, config: ModalityExpertsConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.word = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.token_type = nn.Embedding(config.token_types, size)
        self.text_norm = norm(config)
        self.patch = nn.Conv2d(3, size, kernel_size=config.patch_size, stride=config.patch_size)
        self.cls = nn.Parameter(torch.zeros(1, 1, size))
        self.mask_patch = nn.Parameter(torch.zeros(1, 1, size)) if "mim" in config.heads else None

    def text(self, input_ids: Tensor) -> Tensor:
        """[B, T] to [B, T, H]."""
        return self.text_norm(self.word(input_ids)) + self.token_type.weight[TEXT_TYPE]

    def image(self, pixel_values: Tensor, masked: Tensor | None, image_type: int) -> Tensor:
        """[B, 3, S, S] to [B, 1+P, H], CLS first; where `masked` [B, P] is true the patch is hidden behind one learned vector."""
        patches = self.patch(pixel_values.to(self.patch.weight.dtype)).flatten(2).transpose(1, 2)
        if masked is not None:
            if self.mask_patch is None:
                raise ValueError("patches are masked, but the model has no head 'mim' and so no vector to put in their place")
            patches = torch.where(masked[..., None], self.mask_patch.to(patches.dtype), patches)
        tokens = torch.cat((self.cls.expand(len(patches), -1, -1).to(patches.dtype), patches), dim=1)
        return tokens + self.token_type.weight[image_type]
