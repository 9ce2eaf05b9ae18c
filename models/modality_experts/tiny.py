"""A modality-expert transformer small enough for a laptop's CPU, and a tokenizer made from the words of a corpus."""

from collections.abc import Sequence
from typing import Any

from models.modality_experts.config import ModalityExpertsConfig

PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL = (PAD, UNKNOWN, CLS, SEP, MASK)
TEXT_LENGTH = 24


def digits_config(**changes: Any) -> ModalityExpertsConfig:
    """The sizes of the digits demo: 4 layers of 96, images of 32 pixels in patches of 8. `changes` are fields of the config."""
    sizes: dict[str, Any] = {
        "vocab_size": 128,
        "hidden_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 192,
        "image_size": 32,
        "patch_size": 8,
        "max_text_length": TEXT_LENGTH,
        "drop_path": 0.0,
        "fusion_layer": 2,
    }
    return ModalityExpertsConfig(**{**sizes, **changes})


def word_tokenizer(corpus: Sequence[str]) -> Any:
    """A fast BERT tokenizer with every word of `corpus` as one token and its characters as pieces for other words. Lower case.

    Nothing is drawn or counted: equal sets of words give equal tokenizers.
    """
    from transformers import BertTokenizer

    splitter = BertTokenizer().backend_tokenizer
    words: set[str] = set()
    for text in corpus:
        split = splitter.pre_tokenizer.pre_tokenize_str(splitter.normalizer.normalize_str(text))
        words.update(word for word, _ in split)
    characters = sorted({character for word in words for character in word})
    pieces = [*SPECIAL, *characters, *(f"##{character}" for character in characters), *sorted(word for word in words if len(word) > 1)]
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, model_max_length=TEXT_LENGTH)
