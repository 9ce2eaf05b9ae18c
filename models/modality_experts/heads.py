"""What the model answers with: one small module per head, in the table HEAD_MODULES.

`mlm` and `mim` read hidden states; `itm`, `vqa` and `nlvr2` the pooled state; `itc`, `itc_vl` and `classification` a stream's states.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from foundation.errors import ConfigError
from models.modality_experts.config import ModalityExpertsConfig

TEMPERATURE = 0.07


class WordHead(nn.Module):
    """Logits over the vocabulary for each token, as in BERT (arXiv 1810.04805): a transform, then an own (untied) decoder."""

    def __init__(self, config: ModalityExpertsConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., H] to [..., vocabulary]."""
        return self.decoder(self.norm(functional.gelu(self.dense(hidden))))


class MatchingHead(nn.Module):
    """Do image and text belong together: logits of (no, yes) from the pooled state."""

    def __init__(self, config: ModalityExpertsConfig) -> None:
        super().__init__()
        self.out = nn.Linear(config.hidden_size, 2)

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, H] to [B, 2]; 1 is a match."""
        return self.out(pooled)


class ContrastiveHead(nn.Module):
    """Text and image in one space of unit vectors, compared by cosine times a learned scale (CLIP, arXiv 2103.00020)."""

    def __init__(self, config: ModalityExpertsConfig) -> None:
        super().__init__()
        self.text_projection = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.image_projection = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))

    def text(self, hidden: Tensor) -> Tensor:
        """A text's hidden states [B, T, H] to its unit vector [B, H], from the CLS token."""
        return functional.normalize(self.text_projection(hidden[:, 0]), dim=-1)

    def image(self, hidden: Tensor) -> Tensor:
        """An image's hidden states [B, 1+P, H] to its unit vector [B, H], from the CLS token."""
        return functional.normalize(self.image_projection(hidden[:, 0]), dim=-1)

    def scale(self) -> Tensor:
        """What cosines are multiplied by: the exponential of the learned logarithm."""
        return self.logit_scale.exp()


class PatchHead(nn.Module):
    """The pixels of masked patches, each patch normalised (masked autoencoders, arXiv 2111.06377, section 4)."""

    def __init__(self, config: ModalityExpertsConfig) -> None:
        super().__init__()
        self.out = nn.Linear(config.hidden_size, config.patch_size**2 * 3)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, P, H] (without the CLS token) to [B, P, patch * patch * 3], in the order of `patch_pixels`."""
        return self.out(hidden)


class ChoiceHead(nn.Module):
    """Two layers with a norm between them: `inputs` to twice the hidden size to the logits of `choices`."""

    def __init__(self, config: ModalityExpertsConfig, inputs: int, choices: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, 2 * config.hidden_size)
        self.norm = nn.LayerNorm(2 * config.hidden_size, eps=config.layer_norm_eps)
        self.out = nn.Linear(2 * config.hidden_size, choices)

    def forward(self, pooled: Tensor) -> Tensor:
        """[B, inputs] to [B, choices]."""
        return self.out(functional.gelu(self.norm(self.dense(pooled))))


class ClassHead(nn.Module):
    """Logits of an image's class from the mean of all its tokens, the CLS token among them."""

    def __init__(self, config: ModalityExpertsConfig) -> None:
        super().__init__()
        self.out = nn.Linear(config.hidden_size, len(config.classes))

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, 1+P, H] to [B, classes]."""
        return self.out(hidden.mean(1))


HEAD_MODULES: dict[str, Callable[[ModalityExpertsConfig], nn.Module]] = {
    "mlm": WordHead,
    "itm": MatchingHead,
    "itc": ContrastiveHead,
    "itc_vl": ContrastiveHead,
    "mim": PatchHead,
    "vqa": lambda config: ChoiceHead(config, config.hidden_size, len(config.answers)),
    "nlvr2": lambda config: ChoiceHead(config, 2 * config.hidden_size, 2),
    "classification": ClassHead,
}


def make_heads(config: ModalityExpertsConfig) -> nn.ModuleDict:
    """The heads that `config` names; ConfigError where one has nothing to choose among."""
    return nn.ModuleDict({name: make_head(config, name) for name in config.heads})


def make_head(config: ModalityExpertsConfig, name: str) -> nn.Module:
    """The head called `name`; ConfigError where it has nothing to choose among."""
    for head, choices, field in (("vqa", config.answers, "answers"), ("classification", config.classes, "classes")):
        if head == name and not choices:
            raise ConfigError(f"the head {head!r} has nothing to choose among; give {field}, a list of names")
    return HEAD_MODULES[name](config)


def patch_pixels(pixel_values: Tensor, patch_size: int) -> Tensor:
    """The patches of [B, 3, H, W] as rows [B, P, patch * patch * 3]: patches row by row, in each the pixels row by row, colours last."""
    batch, colours, height, width = pixel_values.shape
    grid = pixel_values.view(batch, colours, height // patch_size, patch_size, width // patch_size, patch_size)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch_size * patch_size * colours)
