"""Selections: what a configuration says to name weights of a model, as canonical strings. Nothing here looks at a model.

    language_model.mlp_gate_up          a whole part, or a block of all its layers, from the table below
    language_model.last_layers(4)       the last 4 layers with what is outside the layers: embeddings, final norm, lm_head
    language_model.all_but_last_layers(4)   the layers before them, with the same
    glob:model.language_model.layers.3.*    full names in memory by shell pattern; `*` crosses dots
    regex:.*\\.layers\\.[0-3]\\.mlp\\..*        full names in memory by regular expression

`compare.py` tells which of them overlap, `find.py` looks them up in a model. Names in memory, not on disk: transformers renames between
the two.
"""

import fnmatch
import re
from dataclasses import dataclass
from enum import StrEnum

from foundation.errors import ConfigError
from foundation.hints import unknown

VISION_TOWER = "vision_tower"
PROJECTOR = "projector"
RESAMPLER = "resampler"
LANGUAGE_MODEL = "language_model"

PART_NAMES = {
    "mm_vision_tower": VISION_TOWER,
    "mm_mlp_adapter": PROJECTOR,
    "mm_vision_resampler": RESAMPLER,
    "mm_language_model": LANGUAGE_MODEL,
}
"""Names in a configuration -> whole parts. The name of a part, as of any selection, may be written too."""


class Block(StrEnum):
    """One of the two halves of a transformer layer."""

    ATTENTION = "attention"
    MLP = "mlp"


class Role(StrEnum):
    """What a projection does in its block."""

    QUERY = "q"
    KEY = "k"
    VALUE = "v"
    OUTPUT = "o"
    GATE = "gate"
    UP = "up"
    DOWN = "down"


QKV = frozenset({Role.QUERY, Role.KEY, Role.VALUE})
WHOLE_ATTENTION = QKV | {Role.OUTPUT}
GATE_UP = frozenset({Role.GATE, Role.UP})
WHOLE_MLP = GATE_UP | {Role.DOWN}


@dataclass(frozen=True)
class Inside:
    """Projections of one block, in all layers of a part, with their biases. A whole MLP takes its router too, attention no norms."""

    part: str
    block: Block
    roles: frozenset[Role]


INSIDE = {
    "language_model.mlp": Inside(LANGUAGE_MODEL, Block.MLP, WHOLE_MLP),
    "language_model.mlp_gate_up": Inside(LANGUAGE_MODEL, Block.MLP, GATE_UP),
    "language_model.mlp_down": Inside(LANGUAGE_MODEL, Block.MLP, frozenset({Role.DOWN})),
    "language_model.attention": Inside(LANGUAGE_MODEL, Block.ATTENTION, WHOLE_ATTENTION),
    "language_model.attention_qkv": Inside(LANGUAGE_MODEL, Block.ATTENTION, QKV),
    "language_model.attention_vo": Inside(LANGUAGE_MODEL, Block.ATTENTION, frozenset({Role.VALUE, Role.OUTPUT})),
    "vision_tower.attention": Inside(VISION_TOWER, Block.ATTENTION, WHOLE_ATTENTION),
    "vision_tower.attention_qkv": Inside(VISION_TOWER, Block.ATTENTION, QKV),
    "vision_tower.mlp": Inside(VISION_TOWER, Block.MLP, WHOLE_MLP),
    "vision_tower.mlp_up": Inside(VISION_TOWER, Block.MLP, GATE_UP),
}
"""Selections within the layers of a part. `mlp_up` is what widens: the first of two linear maps, with the gate where there is one."""

LAST_LAYERS = "language_model.last_layers"
ALL_BUT_LAST_LAYERS = "language_model.all_but_last_layers"
LAYERS = re.compile(r"(language_model\.(?:all_but_)?last_layers)\(([1-9]\d*)\)")
GLOB, REGEX = "glob:", "regex:"
FORMS = (f"{LAST_LAYERS}(N)", f"{ALL_BUT_LAST_LAYERS}(N)", f"{GLOB}PATTERN", f"{REGEX}PATTERN")


@dataclass(frozen=True)
class Selection:
    """A selection taken apart. A whole part has only `part`; `last` and `all_but_last` count layers; a pattern has no part."""

    text: str
    part: str | None = None
    inside: Inside | None = None
    last: int | None = None
    all_but_last: int | None = None
    pattern: re.Pattern[str] | None = None

    @property
    def whole(self) -> bool:
        """Whether it takes all of its part."""
        return self.part is not None and self.inside is None and self.last is None and self.all_but_last is None


def parse_selection(text: str, where: str = "mm_tunable_parts") -> Selection:
    """The selection that `text` names; ConfigError, beginning with `where`, with the nearest name where there is none."""
    text = PART_NAMES.get(text, text)
    if text in PART_NAMES.values():
        return Selection(text, part=text)
    if text in INSIDE:
        return Selection(text, part=INSIDE[text].part, inside=INSIDE[text])
    if layers := LAYERS.fullmatch(text):
        count = int(layers[2])
        return (
            Selection(text, LANGUAGE_MODEL, last=count) if layers[1] == LAST_LAYERS else Selection(text, LANGUAGE_MODEL, all_but_last=count)
        )
    for form in (GLOB, REGEX):
        if text.startswith(form):
            return Selection(text, pattern=compiled(text, form, where))
    if text.startswith((LAST_LAYERS, ALL_BUT_LAST_LAYERS)):
        raise ConfigError(
            f"{where}: {text!r} counts no layers; write {LAST_LAYERS}(4) or {ALL_BUT_LAST_LAYERS}(4) with a count of 1 or more"
        )
    raise ConfigError(f"{where}: {unknown('part', text, [*PART_NAMES, *PART_NAMES.values(), *INSIDE, *FORMS])}")


def compiled(text: str, form: str, where: str) -> re.Pattern[str]:
    """The pattern behind `glob:` or `regex:`; ConfigError for an empty or a broken one."""
    pattern = text.removeprefix(form)
    if not pattern:
        raise ConfigError(f"{where}: {text!r} has no pattern; write one behind it, e.g. {form}lm_head.weight")
    try:
        return re.compile(fnmatch.translate(pattern) if form == GLOB else pattern)
    except re.error as error:
        raise ConfigError(f"{where}: {text!r} is no regular expression ({error}); write commas within one in a YAML list") from error
