"""The configuration of a modality-expert transformer: its sizes, which parts each modality has of its own, and which heads it carries."""

from enum import StrEnum
from typing import Any

from transformers import PretrainedConfig

from foundation.errors import ConfigError
from foundation.hints import unknown

MODEL_TYPE = "modality_experts"
TEXT_POSITIONS = 196
"""The longest text that the relative-position table has rows for; the table is as long for shorter texts."""


class Expert(StrEnum):
    """A modality's own weights. The value is the component of a tensor's name: `encoder.layers.3.mlp.v.fc1.weight`."""

    VISION = "v"
    LANGUAGE = "l"
    VISION_LANGUAGE = "vl"


class Sharing(StrEnum):
    """What each modality has of its own; all else is shared. VL experts exist from `fusion_layer` on only.

    | value      | attention | FFN | layer norms | in the paper (arXiv 2304.14933) |
    | shared     | shared    | shared | shared   | modality-agnostic |
    | all        | own       | own    | own      | no sharing |
    | attention  | own, with the norm before it | shared | shared | custom attention |
    | ffn        | shared    | own, with the norm before it | shared | custom FFN |
    | layer_norm | shared    | shared | own      | custom layer norms |
    """

    SHARED = "shared"
    ALL = "all"
    ATTENTION = "attention"
    FFN = "ffn"
    LAYER_NORM = "layer_norm"


class Streams(StrEnum):
    """How text and image run below the fusion layer when both are there: each attends to itself alone, or both to both."""

    SEPARATE = "separate"
    JOINT = "joint"


HEADS = ("mlm", "itm", "itc", "itc_vl", "mim", "vqa", "nlvr2", "classification")
"""Masked language, image-text matching, contrastive (pure path, VL path), masked image, and the heads of the fine-tuning tasks."""


class ModalityExpertsConfig(PretrainedConfig):
    """Defaults are the base size (BEiT-base/16); large: hidden_size 1024, 24 layers, 16 heads, intermediate_size 4096, fusion_layer 21.

    `heads` are built into the model, in the order of HEADS; `answers` and `classes` name what
    the heads `vqa` and `classification` choose among. ConfigError for values no model can have."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        image_size: int = 224,
        patch_size: int = 16,
        max_text_length: int = 40,
        token_types: int = 2,
        layer_scale: float = 0.1,
        drop_path: float = 0.1,
        layer_norm_eps: float = 1e-6,
        initializer_range: float = 0.02,
        sharing: str = "shared",
        fusion_layer: int = 10,
        streams: str = "separate",
        heads: list[str] | None = None,
        answers: list[str] | None = None,
        classes: list[str] | None = None,
        pad_token_id: int = 0,
        **more: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.image_size = image_size
        self.patch_size = patch_size
        self.max_text_length = max_text_length
        self.token_types = token_types
        self.layer_scale = layer_scale
        self.drop_path = drop_path
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self.sharing = sharing
        self.fusion_layer = fusion_layer
        self.streams = streams
        self.heads = heads or []
        self.answers = answers or []
        self.classes = classes or []
        super().__init__(pad_token_id=pad_token_id, **more)
        self._check()

    @property
    def window(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """Patches of an image, its CLS token aside."""
        return (self.image_size // self.patch_size) ** 2

    def experts_of(self, layer: int) -> tuple[Expert, ...]:
        """The experts a layer has where its parts are not shared."""
        return tuple(Expert) if layer >= self.fusion_layer else (Expert.VISION, Expert.LANGUAGE)

    def _check(self) -> None:
        for name, value, kind in (("sharing", self.sharing, Sharing), ("streams", self.streams, Streams)):
            if value not in list(kind):
                raise ConfigError(unknown(name, str(value), [each.value for each in kind]))
        strange = [head for head in self.heads if head not in HEADS]
        if strange:
            raise ConfigError(unknown("head", strange[0], HEADS))
        self.heads = [head for head in HEADS if head in self.heads]
        rules = [
            (self.hidden_size % self.num_attention_heads == 0, f"hidden_size {self.hidden_size} over {self.num_attention_heads} heads"),
            (self.image_size % self.patch_size == 0, f"image_size {self.image_size} in patches of {self.patch_size}"),
            (2 <= self.max_text_length <= TEXT_POSITIONS, f"max_text_length {self.max_text_length}, of 2 to {TEXT_POSITIONS} tokens"),
            (self.token_types >= 2, f"token_types {self.token_types}, one for text and one at least for images"),
            (0 <= self.fusion_layer <= self.num_hidden_layers, f"fusion_layer {self.fusion_layer} of {self.num_hidden_layers} layers"),
        ]
        for holds, words in rules:
            if not holds:
                raise ConfigError(f"a modality-expert model cannot have {words}; give values that divide, and a layer that is there")
