"""Where each family of models keeps its parts: a table of name prefixes, and what projections are called inside a layer.

Names are those in memory (`named_parameters()`). A part inside the language model is anchored on the language model's prefix, because
vision towers have `.mlp.` and `.self_attn.` too.
"""

import re
from dataclasses import dataclass

from models.parts.selections import GATE_UP, LANGUAGE_MODEL, PROJECTOR, QKV, RESAMPLER, VISION_TOWER, Block, Role


@dataclass(frozen=True)
class Layout:
    """Where a family of models keeps its parts: prefixes of parameter names. A longer prefix wins over a shorter one."""

    vision_tower: tuple[str, ...]
    projector: tuple[str, ...]
    language_model: tuple[str, ...]
    decoder: str
    """The prefix behind which the language model's `layers.N` stand."""
    resampler: tuple[str, ...] = ()


LLAVA = Layout(
    vision_tower=("model.vision_tower.",),
    projector=("model.multi_modal_projector.", "model.image_newline"),
    language_model=("model.language_model.", "lm_head."),
    decoder="model.language_model.",
)
IDEFICS2 = Layout(
    vision_tower=("model.vision_model.",),
    projector=("model.connector.",),
    resampler=("model.connector.perceiver_resampler.",),
    language_model=("model.text_model.", "lm_head."),
    decoder="model.text_model.",
)
IDEFICS3 = Layout(
    vision_tower=("model.vision_model.",),
    projector=("model.connector.",),
    language_model=("model.text_model.", "lm_head."),
    decoder="model.text_model.",
)
QWEN_VL = Layout(
    vision_tower=("model.visual.",),
    projector=("model.visual.merger.", "model.visual.deepstack_merger_list."),
    language_model=("model.language_model.", "lm_head."),
    decoder="model.language_model.",
)
TEXT_ONLY = Layout(vision_tower=(), projector=(), language_model=("",), decoder="model.")

LAYOUTS = {
    "llava": LLAVA,
    "llava_next": LLAVA,
    "llava_onevision": LLAVA,
    "paligemma": LLAVA,
    "internvl": LLAVA,
    "idefics2": IDEFICS2,
    "idefics3": IDEFICS3,
    "smolvlm": IDEFICS3,
    "qwen2_vl": QWEN_VL,
    "qwen2_5_vl": QWEN_VL,
    "qwen3_vl": QWEN_VL,
}
"""`config.model_type` -> layout. A model without images is TEXT_ONLY."""

LAYER = re.compile(r"(?:\w+\.)?(?:layers|layer|blocks)\.(\d+)\.(.+)")
"""A weight of a numbered layer, behind its part's prefix: (which layer, the rest of the name)."""

BLOCKS = {Block.ATTENTION: ("self_attn", "attn", "attention"), Block.MLP: ("mlp", "feed_forward")}
"""What the blocks of a layer are called."""

NOTHING: frozenset[Role] = frozenset()
PROJECTIONS: dict[Block, dict[str, frozenset[Role]]] = {
    Block.ATTENTION: {
        "q_proj": frozenset({Role.QUERY}),
        "k_proj": frozenset({Role.KEY}),
        "v_proj": frozenset({Role.VALUE}),
        **dict.fromkeys(("qkv", "qkv_proj"), QKV),
        **dict.fromkeys(("o_proj", "out_proj", "proj", "projection_layer", "dense"), frozenset({Role.OUTPUT})),
        **dict.fromkeys(("q_norm", "k_norm"), NOTHING),
    },
    Block.MLP: {
        "gate_proj": frozenset({Role.GATE}),
        **dict.fromkeys(("up_proj", "fc1", "linear_fc1"), frozenset({Role.UP})),
        "gate_up_proj": GATE_UP,
        **dict.fromkeys(("down_proj", "fc2", "linear_fc2"), frozenset({Role.DOWN})),
        **dict.fromkeys(("gate", "router", "shared_expert_gate"), NOTHING),
    },
}
"""What projections are called inside a block, and what they do. Norms and the routers of experts are none."""


def part_of(name: str, layout: Layout) -> str | None:
    """Which whole part the parameter called `name` belongs to: the one with the longest matching prefix."""
    matches = [(len(prefix), part) for part, prefixes in prefixes_of(layout).items() for prefix in prefixes if name.startswith(prefix)]
    return max(matches)[1] if matches else None


def prefixes_of(layout: Layout) -> dict[str, tuple[str, ...]]:
    """The prefixes of each whole part."""
    return {
        VISION_TOWER: layout.vision_tower,
        PROJECTOR: layout.projector,
        RESAMPLER: layout.resampler,
        LANGUAGE_MODEL: layout.language_model,
    }


def place_in_layer(name: str, part: str, layout: Layout) -> tuple[int, str] | None:
    """(layer, rest of the name) for a weight of `part` that stands in one of its numbered layers, else None."""
    anchors = (layout.decoder,) if part == LANGUAGE_MODEL else prefixes_of(layout)[part]
    if part_of(name, layout) != part:
        return None
    matches = (LAYER.fullmatch(name.removeprefix(anchor)) for anchor in anchors if name.startswith(anchor))
    return next(((int(match[1]), match[2]) for match in matches if match), None)


def roles_of(rest: str, block: Block) -> frozenset[Role] | None:
    """What the weight called `rest` within a block does; None where nothing in its name is known."""
    known = PROJECTIONS[block]
    return next((known[word] for word in reversed(rest.split(".")) if word in known), None)
