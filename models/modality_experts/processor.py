"""Texts and images as the model takes them: a fast BERT tokenizer and an image processor, saved beside the weights."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import InputError
from models.load import first_line, refuse_own_code
from models.modality_experts.config import ModalityExpertsConfig

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

BICUBIC = 3
WORDS = ("tokenizer.json", "vocab.txt")
"""The files that a tokenizer's words lie in: without one, transformers makes a tokenizer that knows none and says nothing."""
OF_THE_LOADING = ("is_local", "local_files_only", "name_or_path")
"""What a tokenizer remembers of where it was read from, and would write into its config."""


@dataclass(frozen=True)
class PairProcessor:
    """`tokenizer` makes word pieces (its `model_max_length` is the model's), `image_processor` squares of the model's size."""

    tokenizer: Any
    image_processor: Any

    @property
    def max_text_length(self) -> int:
        """The length that texts are padded and truncated to."""
        return self.tokenizer.model_max_length

    @property
    def image_size(self) -> int:
        """The side of an image in pixels."""
        return self.image_processor.size["height"]

    def texts(self, texts: Sequence[str]) -> dict[str, "torch.Tensor"]:
        """`input_ids` and `attention_mask` [B, max_text_length], int64; CLS first, SEP last, padded, what is longer truncated."""
        made = self.tokenizer(list(texts), padding="max_length", truncation=True, max_length=self.max_text_length, return_tensors="pt")
        return {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"]}

    def images(self, images: Sequence["Image"]) -> "torch.Tensor":
        """Pixels [B, 3, size, size] in float32, between -1 and 1; each image is scaled to the square (bicubic)."""
        return self.image_processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]

    def save_pretrained(self, directory: str | Path) -> None:
        """Write both to `directory`; the same bytes whatever texts the tokenizer has seen."""
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        for remembered in OF_THE_LOADING:
            tokenizer.init_kwargs.pop(remembered, None)
        tokenizer.save_pretrained(directory)
        self.image_processor.save_pretrained(directory)


def pair_processor(tokenizer: Any, config: ModalityExpertsConfig) -> PairProcessor:
    """The processor for a model of `config`. InputError where the tokenizer has more words than the model, or another padding token."""
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    if len(tokenizer) > config.vocab_size or tokenizer.pad_token_id != config.pad_token_id:
        raise InputError(
            f"the tokenizer has {len(tokenizer)} words and pads with {tokenizer.pad_token_id}, the model has {config.vocab_size} and "
            f"{config.pad_token_id}; take the tokenizer that belongs to the model, or make the config for this one"
        )
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = config.max_text_length
    side = {"height": config.image_size, "width": config.image_size}
    half = [0.5, 0.5, 0.5]
    return PairProcessor(tokenizer, ViTImageProcessorPil(size=side, image_mean=half, image_std=half, resample=BICUBIC))


def load_processor(directory: str | Path) -> PairProcessor:
    """The processor saved in `directory`; InputError where there is none."""
    from transformers import AutoTokenizer
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    refuse_own_code(directory)
    if not any(Path(directory, name).is_file() for name in WORDS):
        raise InputError(f"{directory}: has none of {', '.join(WORDS)}, so its words are not known; copy the checkpoint with its tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
        return PairProcessor(tokenizer, ViTImageProcessorPil.from_pretrained(directory))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{directory}: its tokenizer or image processor cannot be loaded: {first_line(error)}") from error
