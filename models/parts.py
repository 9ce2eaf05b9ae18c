"""Named parts of a model: which parameters a stage of learning may change.

Configuration names parts (`mm_language_model`); `parse_parts` checks the names without loading anything, so a mistyped one is refused in
`validate`. `tunable_parameters` finds the parts in a model in memory. Names in memory, not on disk: transformers renames between the two.
A part inside the language model is anchored on the language model's prefix, because vision towers have `.mlp.` and `.self_attn.` too.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VISION_TOWER = "vision_tower"
PROJECTOR = "projector"
LANGUAGE_MODEL = "language_model"
MLP = "language_model.mlp"

PART_NAMES = {
    "mm_vision_tower": VISION_TOWER,
    "mm_mlp_adapter": PROJECTOR,
    "mm_language_model": LANGUAGE_MODEL,
}
"""Names in a configuration -> canonical names. A canonical name may be written too."""

INSIDE = {
    MLP: r"layers\.\d+\.mlp\.",
    "language_model.mlp_gate_up": r"layers\.\d+\.mlp\.(gate_proj|up_proj|gate_up_proj)\.",
    "language_model.attention": r"layers\.\d+\.self_attn\.",
    "language_model.attention_qkv": r"layers\.\d+\.self_attn\.(q_proj|k_proj|v_proj|qkv_proj)\.",
}
"""Parts within the language model, as patterns that begin behind its prefix."""


@dataclass(frozen=True)
class Layout:
    """Where a family of models keeps its parts: prefixes of parameter names. A longer prefix wins over a shorter one."""

    vision_tower: tuple[str, ...]
    projector: tuple[str, ...]
    language_model: tuple[str, ...]
    decoder: str
    """The prefix behind which the language model's `layers.N` stand."""


LLAVA = Layout(
    vision_tower=("model.vision_tower.",),
    projector=("model.multi_modal_projector.", "model.image_newline"),
    language_model=("model.language_model.", "lm_head."),
    decoder="model.language_model.",
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
    "idefics3": IDEFICS3,
    "smolvlm": IDEFICS3,
    "qwen2_vl": QWEN_VL,
    "qwen2_5_vl": QWEN_VL,
    "qwen3_vl": QWEN_VL,
}
"""`config.model_type` -> layout. A model without images is TEXT_ONLY."""


def parse_parts(mm_tunable_parts: str | Sequence[str], mlp_only: bool = False) -> tuple[str, ...]:
    """Canonical names, sorted, of the parts a configuration names: "mm_mlp_adapter,mm_language_model" -> ("language_model", "projector").

    `mlp_only` (`mm_language_model_train_mlp_only`) narrows the language model to its MLPs. Raises ConfigError for an unknown part (with the
    nearest name), none at all, one named twice, a part beside one that holds it, and `mlp_only` without `mm_language_model`.
    """
    words = mm_tunable_parts.split(",") if isinstance(mm_tunable_parts, str) else list(mm_tunable_parts)
    parts = [canonical(word.strip()) for word in words if word.strip()]
    if not parts:
        raise ConfigError(f"mm_tunable_parts: no part is named; name one or more of {', '.join(sorted(PART_NAMES))}")
    if mlp_only and LANGUAGE_MODEL not in parts:
        raise ConfigError(
            f"mm_language_model_train_mlp_only narrows mm_language_model, but mm_tunable_parts names {', '.join(parts)}; "
            "add mm_language_model to mm_tunable_parts, or leave mm_language_model_train_mlp_only out"
        )
    parts = sorted(MLP if mlp_only and part == LANGUAGE_MODEL else part for part in parts)
    for first, second in pairwise(parts):
        if first == second:
            raise ConfigError(f"mm_tunable_parts: part {first!r} is named twice; name it once")
    for part in parts:
        holder = holder_of(part, parts)
        if holder:
            raise ConfigError(f"mm_tunable_parts: {holder!r} already holds {part!r}; name only one of them")
    return tuple(parts)


def canonical(word: str) -> str:
    """The canonical name of a part; ConfigError with the nearest name where there is none."""
    known = {**PART_NAMES, **{part: part for part in (*PART_NAMES.values(), *INSIDE)}}
    if word not in known:
        raise ConfigError(f"mm_tunable_parts: {unknown('part', word, known)}")
    return known[word]


def holder_of(part: str, parts: Sequence[str]) -> str | None:
    """The other one of `parts` that holds all of `part`, if any."""
    return next((other for other in parts if part != other and part.startswith((f"{other}.", f"{other}_"))), None)


def layout_of(model: "PreTrainedModel") -> Layout:
    """Where `model` keeps its parts; InputError for a model with images whose family the table does not have."""
    config = model.config
    if config.model_type in LAYOUTS:
        return LAYOUTS[config.model_type]
    if getattr(config, "vision_config", None) is None:
        return TEXT_ONLY
    raise InputError(
        f"the parts of model type {config.model_type!r} are not known; use one of {', '.join(sorted(LAYOUTS))}, "
        "a text-only model, or add a row to LAYOUTS in models/parts.py"
    )


def part_of(name: str, layout: Layout) -> str | None:
    """Which of the three whole parts the parameter called `name` belongs to: the one with the longest matching prefix."""
    whole = {VISION_TOWER: layout.vision_tower, PROJECTOR: layout.projector, LANGUAGE_MODEL: layout.language_model}
    matches = [(len(prefix), part) for part, prefixes in whole.items() for prefix in prefixes if name.startswith(prefix)]
    return max(matches)[1] if matches else None


def parameters_of(model: "PreTrainedModel", part: str) -> list[str]:
    """Names in memory of the parameters of one part, sorted; InputError where the model has none."""
    layout = layout_of(model)
    names = [name for name, _ in model.named_parameters()]
    if part in INSIDE:
        pattern = re.compile(re.escape(layout.decoder) + INSIDE[part])
        found = [name for name in names if pattern.match(name)]
    else:
        found = [name for name in names if part_of(name, layout) == part]
    if not found:
        has = sorted({whole for name in names if (whole := part_of(name, layout))})
        raise InputError(
            f"part {part!r} matches no parameter of {type(model).__name__} ({model.config.model_type}); "
            f"it has {', '.join(has)}, with names such as {names[0]!r} and {names[-1]!r}; name a part it has in mm_tunable_parts"
        )
    return sorted(found)


def tunable_parameters(model: "PreTrainedModel", parts: Sequence[str]) -> list[str]:
    """Names in memory of the parameters that `parts` (canonical names) select, sorted. Raises InputError for a part that matches none."""
    return sorted({name for part in parts for name in parameters_of(model, part)})


def set_trainable(model: "PreTrainedModel", parts: Sequence[str]) -> dict[str, int]:
    """Make the parameters of `parts` trainable and freeze all others; gives the number of weights per part.

    Raises InputError, before anything is changed, for a part that matches no parameter.
    """
    selected = {part: parameters_of(model, part) for part in parts}
    chosen = {name for names in selected.values() for name in names}
    sizes = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
        sizes[name] = parameter.numel()
    return {part: sum(sizes[name] for name in names) for part, names in selected.items()}
