"""One namespace for tensors: what the names that older releases wrote are called today, and which names are tied to one another.

Two saves of ONE model can carry different names on disk: transformers 5 writes the names of older releases unless told otherwise, and
follows the names of the checkpoint that it loaded. `modern` brings them together. It also gives the language model inside a
vision-language model one prefix, `model.language_model.`, whatever the family calls it, so that a view of a language model need not know
which family it is merged into. Nobody writes these names: the output keeps those of its anchor.
"""

import re
from collections.abc import Mapping
from typing import Any

Steps = tuple[tuple[str, str], ...]
"""(pattern, replacement) pairs, applied in order."""

LANGUAGE_MODEL, OUTPUT_HEAD = "model.language_model.", "lm_head."
"""Where the language model of a vision-language model stands, and its output head."""
VISION_TOWERS = ("model.vision_tower.", "model.visual.", "model.vision_model.")

_LLAVA: Steps = (
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^(vision_tower|multi_modal_projector|image_newline)\b", r"model.\1"),
    (r"^model\.vision_tower\.vision_model\.", "model.vision_tower."),
)
_QWEN2_VL: Steps = (
    (r"^visual\.", "model.visual."),
    (r"^model\.(?!language_model\.|visual\.)", "model.language_model."),
)
_IDEFICS: Steps = ((r"^model\.text_model\.", "model.language_model."),)
_LLAVA_FAMILY = (
    "llava", "llava_next", "llava_next_video", "llava_onevision", "vipllava", "paligemma", "internvl", "aya_vision", "gemma3", "mistral3",
    "got_ocr2",
)  # fmt: skip
RENAMINGS: dict[str, Steps] = {
    **dict.fromkeys(_LLAVA_FAMILY, _LLAVA),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), _QWEN2_VL),
    **dict.fromkeys(("idefics2", "idefics3", "smolvlm"), _IDEFICS),
}
"""model_type -> the steps from older names on disk to today's. Today's names pass unchanged."""

HEADS = {
    "lm_head.weight": ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight", "model.text_model.embed_tokens.weight"),
    "language_model.lm_head.weight": ("language_model.model.embed_tokens.weight",),
}
"""Name of an output head -> names of the embedding it is tied to, in models that tie them."""


def steps_of(config: Mapping[str, Any]) -> Steps:
    """The renamings that a model of this config may need; none for a family whose names never changed."""
    return RENAMINGS.get(str(config.get("model_type")), ())


def modern(name: str, steps: Steps) -> str:
    """Today's name of a tensor."""
    for pattern, replacement in steps:
        name = re.sub(pattern, replacement, name)
    return name


def head_beside(names: Mapping[str, Any]) -> str | None:
    """What a model with these names on disk calls, or would call, its output head; None if its embedding has no name that is known."""
    return next((head for head, embeddings in HEADS.items() if any(name in names for name in embeddings)), None)
