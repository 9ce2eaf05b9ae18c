"""Which part of a model a tensor belongs to, told from its name: the tower, the layer, and the kind of part (attention, mlp, norm, ...).

For tables and pictures only: no merge depends on it. Names are today's (`names.py`), of any family whose layers are numbered.
"""

import re
from dataclasses import dataclass

STACKS = ("layers", "layer", "blocks", "block", "h", "resblocks", "stages")
"""The words before the number of a layer."""
FRAMES = ("model", "transformer", "base_model", "encoder", "decoder", "module")
"""Words that frame a part without naming it."""
PARTS = (
    ("embeddings", r"embed|wte|wpe|class_token|cls_token|position"),
    ("norm", r"norm|^ln|layernorm"),
    ("attention", r"attn|attention"),
    ("mlp", r"mlp|ffn|feed_forward|moe|intermediate|output|fc\d"),
    ("head", r"head|score|classifier"),
    ("projector", r"projector|connector|merger|resampler|perceiver"),
)
"""Kind of part -> what its names look like; the first match wins."""


@dataclass(frozen=True, order=True)
class Group:
    """A part of a model. `layer` is -1 outside the layers; `tower` is empty where a model has no named towers."""

    tower: str
    layer: int
    part: str

    @property
    def label(self) -> str:
        """The group in words, e.g. "layers.3 mlp", "vision_tower layers.0 attention", "embeddings"."""
        return " ".join(word for word in (self.tower, f"layers.{self.layer}" if self.layer >= 0 else "", self.part) if word)


def group_of(name: str) -> Group:
    """The group of a tensor."""
    words = name.split(".")
    place = next((index for index in range(1, len(words)) if words[index].isdigit() and words[index - 1] in STACKS), None)
    if place is not None:
        return Group(tower_of(words[: place - 1]), int(words[place]), part_of(words[place + 1 :]))
    named = [word for word in words[:-1] if word not in FRAMES] or words[-1:]
    tower = named[0] if len(named) > 1 and kind_of(named[0]) is None else ""
    return Group(tower, -1, part_of(named[1:] if tower else named))


def tower_of(words: list[str]) -> str:
    """The tower that the words before a stack of layers name."""
    return next((word for word in words if word not in FRAMES), "")


def part_of(words: list[str]) -> str:
    """The kind of part that the first word names; the word itself where it is of no known kind."""
    return (kind_of(words[0]) or words[0]) if words else "other"


def kind_of(word: str) -> str | None:
    """The kind of part that a word names, if any."""
    return next((part for part, pattern in PARTS if re.search(pattern, word)), None)
