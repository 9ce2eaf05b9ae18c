"""The modality-expert transformer: texts, images and pairs of them through one stack of layers (VLMo, arXiv 2111.02358).

A text's tokens and an image's run alone through the layers below the fusion layer, each with its own experts where a part is not shared.
From the fusion layer on a pair runs as one sequence, text first, with the vision-language experts; a text or an image alone either stays
with its own experts (`through="l"`, `"v"`) or takes the vision-language ones (`through="vl"`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from foundation.errors import InputError
from models.modality_experts.config import Expert, ModalityExpertsConfig, Streams
from models.modality_experts.embeddings import IMAGE_TYPE, Embeddings
from models.modality_experts.heads import make_heads
from models.modality_experts.initial import draw_weights, scale_by_depth
from models.modality_experts.layers import Layer, Spans, norm
from models.modality_experts.positions import RelativePositions


class Pooler(nn.Module):
    """The first token's state through one layer and tanh, as in BERT."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, size)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, N, H] to [B, H]."""
        return self.dense(hidden[:, 0]).tanh()


class Encoder(nn.Module):
    """The layers."""

    def __init__(self, config: ModalityExpertsConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.num_hidden_layers))


class ModalityExpertsModel(PreTrainedModel):
    """Texts `input_ids`, `attention_mask` [B, T] (1 for a real token), images `pixel_values` [B, 3, S, S]; states are [B, tokens, H].

    `text`, `image` and `pair` end with the final norm. What they consist of, `*_below` and `*_above` the fusion layer and `fuse`, lets a
    caller run the lower layers once for several paths. InputError for images or texts of a size the model does not take.
    """

    config_class = ModalityExpertsConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("Layer",)

    def __init__(self, config: ModalityExpertsConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.relative_positions = RelativePositions(config)
        self.encoder = Encoder(config)
        self.norm = norm(config)
        self.pooler = Pooler(config.hidden_size)
        self.heads = make_heads(config)
        self.lower = range(config.fusion_layer)
        self.upper = range(config.fusion_layer, config.num_hidden_layers)
        self.post_init()
        scale_by_depth(self.encoder.layers)

    def text(self, input_ids: Tensor, attention_mask: Tensor | None = None, through: str = Expert.LANGUAGE) -> Tensor:
        """A text's states [B, T, H]; `through` "l", or "vl" for the vision-language experts from the fusion layer on."""
        return self.text_above(self.text_below(input_ids, attention_mask), attention_mask, through)

    def image(
        self, pixel_values: Tensor, masked: Tensor | None = None, through: str = Expert.VISION, image_type: int = IMAGE_TYPE
    ) -> Tensor:
        """An image's states [B, 1+P, H]; `masked` [B, P] hides patches; `through` "v", or "vl" as for `text`."""
        return self.image_above(self.image_below(pixel_values, masked, image_type), through)

    def pair(self, input_ids: Tensor, attention_mask: Tensor | None, pixel_values: Tensor, image_type: int = IMAGE_TYPE) -> Tensor:
        """The states of texts with their images [B, T+1+P, H], text first."""
        if self.config.streams == Streams.JOINT:
            return self._fuse_joined(self._embed_text(input_ids), attention_mask, self._embed_image(pixel_values, None, image_type))
        return self.fuse(self.text_below(input_ids, attention_mask), attention_mask, self.image_below(pixel_values, None, image_type))

    def pool(self, hidden: Tensor) -> Tensor:
        """[B, N, H] to [B, H], from the first token."""
        return self.pooler(hidden)

    def text_below(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """A text alone up to the fusion layer."""
        hidden, length = self._embed_text(input_ids), input_ids.shape[1]
        return self._run(hidden, self.lower, ((Expert.LANGUAGE, length),), attention_mask, text=length)

    def image_below(self, pixel_values: Tensor, masked: Tensor | None = None, image_type: int = IMAGE_TYPE) -> Tensor:
        """An image alone up to the fusion layer."""
        hidden = self._embed_image(pixel_values, masked, image_type)
        return self._run(hidden, self.lower, ((Expert.VISION, hidden.shape[1]),))

    def text_above(self, hidden: Tensor, attention_mask: Tensor | None = None, through: str = Expert.LANGUAGE) -> Tensor:
        """From `text_below` to a text's states."""
        spans = ((_one_of(through, Expert.LANGUAGE), hidden.shape[1]),)
        return self.norm(self._run(hidden, self.upper, spans, attention_mask, text=hidden.shape[1]))

    def image_above(self, hidden: Tensor, through: str = Expert.VISION) -> Tensor:
        """From `image_below` to an image's states."""
        return self.norm(self._run(hidden, self.upper, ((_one_of(through, Expert.VISION), hidden.shape[1]),)))

    def fuse(self, text: Tensor, attention_mask: Tensor | None, image: Tensor) -> Tensor:
        """From `text_below` and `image_below` to the states of the pairs [B, T+1+P, H] (separate streams: `pair` in two halves)."""
        hidden, mask = torch.cat((text, image), dim=1), _with_image(attention_mask, image)
        spans = ((Expert.VISION_LANGUAGE, hidden.shape[1]),)
        return self.norm(self._run(hidden, self.upper, spans, mask, text=text.shape[1]))

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, pixel_values: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        """The states and the pooled state of texts, of images, or of pairs, by what is given."""
        if input_ids is not None and pixel_values is not None:
            hidden = self.pair(input_ids, attention_mask, pixel_values)
        elif input_ids is not None:
            hidden = self.text(input_ids, attention_mask)
        elif pixel_values is not None:
            hidden = self.image(pixel_values)
        else:
            raise ValueError("give input_ids, pixel_values, or both")
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=self.pool(hidden))

    def _fuse_joined(self, text: Tensor, attention_mask: Tensor | None, image: Tensor) -> Tensor:
        """The states of pairs that attend to one another in every layer; below the fusion layer each token with its modality's parts."""
        hidden, mask, length = torch.cat((text, image), dim=1), _with_image(attention_mask, image), text.shape[1]
        hidden = self._run(hidden, self.lower, ((Expert.LANGUAGE, length), (Expert.VISION, image.shape[1])), mask, text=length)
        return self.norm(self._run(hidden, self.upper, ((Expert.VISION_LANGUAGE, hidden.shape[1]),), mask, text=length))

    def _run(self, hidden: Tensor, layers: range, spans: Spans, mask: Tensor | None = None, text: int = 0) -> Tensor:
        """`hidden` through `layers`: its first `text` tokens are a text's, the others an image's; `mask` [B, N] is 0 for padding."""
        padding = None if mask is None else mask[:, None, None, :] == 0
        for number, bias in zip(layers, self.relative_positions(layers, text, image=hidden.shape[1] > text), strict=True):
            if padding is not None:
                bias = bias.masked_fill(padding, torch.finfo(bias.dtype).min)
            hidden = self.encoder.layers[number](hidden, bias, spans)
        return hidden

    def _embed_text(self, input_ids: Tensor) -> Tensor:
        if not 2 <= input_ids.shape[1] <= self.config.max_text_length:
            raise InputError(
                f"texts of {input_ids.shape[1]} tokens for a model of max_text_length {self.config.max_text_length}; "
                "tokenize with the PairProcessor of the model, which pads and truncates to its length"
            )
        return self.embeddings.text(input_ids)

    def _embed_image(self, pixel_values: Tensor, masked: Tensor | None, image_type: int) -> Tensor:
        side = self.config.image_size
        if tuple(pixel_values.shape[1:]) != (3, side, side):
            raise InputError(
                f"images of shape {tuple(pixel_values.shape[1:])} for a model that takes (3, {side}, {side}); "
                "prepare them with the PairProcessor of the model, or start from reshaped(..., image_size=...)"
            )
        return self.embeddings.image(pixel_values, masked, image_type)

    def _init_weights(self, module: nn.Module) -> None:
        draw_weights(module, self.config.initializer_range)


def _with_image(mask: Tensor | None, image: Tensor) -> Tensor | None:
    """A text's mask with ones for the image's tokens behind it."""
    return None if mask is None else torch.cat((mask, mask.new_ones(image.shape[:2])), dim=1)


def _one_of(through: str, own: Expert) -> Expert:
    """`through` as the expert it names: the stream's own or the vision-language one."""
    if through not in (own, Expert.VISION_LANGUAGE):
        raise ValueError(f"through is {through!r}; this stream runs through {own.value!r} or 'vl'")
    return Expert(through)
