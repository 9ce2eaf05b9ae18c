"""Named parts of a model: which weights a stage of learning may change.

    parts = parse_parts("mm_mlp_adapter,mm_language_model", flags)   # a configuration's words -> canonical selections; no model needed
    learned = set_trainable(model, parts)                            # freezes the rest; weights by selection

`selections.py` says what can be selected, `compare.py` which selections overlap, `seed_flags.py` how the first seed system says it,
`layouts.py` where families of models keep their parts, `names.py` what a model's parameters are called below its wrappings, `find.py` which
of them a selection takes; `freeze.py` freezes the others. Importing this loads no torch.
"""

from models.parts.compare import check_apart, check_rated
from models.parts.find import parameters_of, selected, tunable_parameters
from models.parts.freeze import check_trainable, count_weights, set_trainable
from models.parts.layouts import LAYOUTS, TEXT_ONLY, Layout, part_of
from models.parts.names import layout_of, names_of, plain_name
from models.parts.seed_flags import SeedFlags, parse_parts
from models.parts.selections import (
    INSIDE,
    LANGUAGE_MODEL,
    PART_NAMES,
    PROJECTOR,
    RESAMPLER,
    VISION_TOWER,
    Selection,
    parse_selection,
)

__all__ = [
    "INSIDE",
    "LANGUAGE_MODEL",
    "LAYOUTS",
    "PART_NAMES",
    "PROJECTOR",
    "RESAMPLER",
    "TEXT_ONLY",
    "VISION_TOWER",
    "Layout",
    "SeedFlags",
    "Selection",
    "check_apart",
    "check_rated",
    "check_trainable",
    "count_weights",
    "layout_of",
    "names_of",
    "parameters_of",
    "parse_parts",
    "parse_selection",
    "part_of",
    "plain_name",
    "selected",
    "set_trainable",
    "tunable_parameters",
]
