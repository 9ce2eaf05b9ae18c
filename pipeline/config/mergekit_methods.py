"""The methods of mergekit (0.1.5) that we share: which of ours carries each out, what its parameters are called here, and where it differs.

The differences stand as notes, which the plan and the model card repeat. What holds for all: mergekit computes in `dtype` (or in the dtype
of the files), here it is float32, rounded once; a choice that mergekit leaves to a sort or to torch's random state is made the same way
every time here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Base(Enum):
    """What a method of mergekit does with `base_model`."""

    ANCHOR = "anchor"
    """Sources are measured from it; where it stands among the models too, it is not merged."""
    MAYBE = "maybe"
    """As an anchor, if it is given."""
    FIRST = "first"
    """It is the first of two models."""
    FILES = "files"
    """It is one of the models, and the one whose config and tokenizer the output takes."""


@dataclass(frozen=True)
class Number:
    """A number, which may be a gradient or a list of filters: our field, what mergekit takes where none is given, a factor on the way."""

    ours: str
    default: float | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Switch:
    """true or false: our field, and mergekit's default. Without a field only the default can be had."""

    ours: str | None
    default: bool


@dataclass(frozen=True)
class Shared:
    """A method of mergekit's: our name for it, its parameters of each model and of the whole merge, and where it differs.

    `idle` parameters are accepted and change nothing, `fixed` fields are always so. `scaled` is the switch that scales weights to sum to 1
    before our method sees them. `notes` always hold, those of `thinned` where changes are left out, those of `rescaled` where the rest is
    made larger for it.
    """

    ours: str
    base: Base
    each: Mapping[str, Number] = field(default_factory=dict)
    whole: Mapping[str, Number | Switch] = field(default_factory=dict)
    idle: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    scaled: str | None = None
    notes: tuple[str, ...] = ()
    thinned: tuple[str, ...] = ()
    rescaled: tuple[str, ...] = ()


WEIGHT = {"weight": Number("weights")}
LAMBDA = {"lambda": Number("scale", 1.0)}
DENSITY = {"density": Number("density", 1.0)}
RESCALE: dict[str, Number | Switch] = {"rescale": Switch("rescale", True)}
GAMMA = {"gamma": Number("outliers", 0.01)}
EPSILON = {"epsilon": Number("spread", 0.15, factor=2.0)}
UNUSED = ("int8_mask",)

EQUALS = "of changes that equal the last one kept in size all are kept; mergekit keeps an arbitrary choice of them"
ZERO_SIGN = "where the weighted changes cancel to exactly 0 nothing is added; mergekit takes the positive ones"
DRAWS = "which changes are dropped is drawn anew (by seed, source, tensor and place), so it is not mergekit's choice"
RESCALED = "kept changes are divided by their probability of being kept, as in the paper; mergekit rescales by the ratio of L1 norms"


def normalize(default: bool) -> dict[str, Number | Switch]:
    """mergekit's `normalize`, with its default for a method."""
    return {"normalize": Switch("normalize", default)}


MERGEKIT: dict[str, Shared] = {
    "linear": Shared("weighted_average", Base.FILES, WEIGHT, {"normalize": Switch(None, True)}, UNUSED, scaled="normalize"),
    "slerp": Shared(
        "slerp",
        Base.FIRST,
        whole={"t": Number("weight")},
        notes=("a tensor of zeros is averaged straight; mergekit takes it for orthogonal to the other",),
    ),
    "nuslerp": Shared(
        "nuslerp",
        Base.MAYBE,
        WEIGHT,
        {"nuslerp_flatten": Switch(None, True), "nuslerp_row_wise": Switch(None, False)},
        UNUSED,
    ),
    "multislerp": Shared(
        "spherical_average",
        Base.FILES,
        WEIGHT,
        {"normalize_weights": Switch(None, True)},
        ("eps", *UNUSED),
        scaled="normalize_weights",
        notes=("it starts from the mean of the tensors' directions; mergekit's multislerp starts from that of the tensors themselves",),
    ),
    "karcher": Shared(
        "karcher",
        Base.FILES,
        idle=("max_iter", "tol", *UNUSED),
        notes=("the mean is searched until it moves by less than 1e-12 radians; mergekit stops at max_iter (10) or tol (1e-5)",),
    ),
    "task_arithmetic": Shared("task_arithmetic", Base.ANCHOR, WEIGHT, {**LAMBDA, **normalize(False)}, UNUSED),
    "ties": Shared(
        "ties_per_tensor",
        Base.ANCHOR,
        {**WEIGHT, **DENSITY},
        {**LAMBDA, **normalize(True), "rescale": Switch(None, False)},
        UNUSED,
        notes=(ZERO_SIGN,),
        thinned=(EQUALS,),
    ),
    "dare_linear": Shared(
        "dare_linear",
        Base.ANCHOR,
        {**WEIGHT, **DENSITY},
        {**LAMBDA, **normalize(False), **RESCALE},
        UNUSED,
        thinned=(DRAWS,),
        rescaled=(RESCALED,),
    ),
    "dare_ties": Shared(
        "dare_ties",
        Base.ANCHOR,
        {**WEIGHT, **DENSITY},
        {**LAMBDA, **normalize(False), **RESCALE},
        UNUSED,
        notes=(ZERO_SIGN,),
        thinned=(DRAWS,),
        rescaled=(RESCALED,),
    ),
    "breadcrumbs": Shared(
        "breadcrumbs",
        Base.ANCHOR,
        {**WEIGHT, **DENSITY, **GAMMA},
        {**LAMBDA, **normalize(False), "rescale": Switch(None, False)},
        UNUSED,
        thinned=(EQUALS,),
    ),
    "breadcrumbs_ties": Shared(
        "breadcrumbs_ties",
        Base.ANCHOR,
        {**WEIGHT, **DENSITY, **GAMMA},
        {**LAMBDA, **normalize(False), "rescale": Switch(None, False)},
        UNUSED,
        notes=(ZERO_SIGN,),
        thinned=(EQUALS,),
    ),
    "della_linear": Shared(
        "della_linear",
        Base.ANCHOR,
        {**WEIGHT, **DENSITY, **EPSILON},
        {**LAMBDA, **normalize(False), **RESCALE},
        UNUSED,
        thinned=(DRAWS,),
        rescaled=(RESCALED,),
    ),
    "della": Shared(
        "della",
        Base.ANCHOR,
        {**WEIGHT, **DENSITY, **EPSILON},
        {**LAMBDA, **normalize(True), **RESCALE},
        UNUSED,
        notes=(ZERO_SIGN,),
        thinned=(DRAWS,),
        rescaled=(RESCALED,),
    ),
    "sce": Shared("sce", Base.ANCHOR, whole={"select_topk": Number("select", 1.0)}, idle=UNUSED, notes=(ZERO_SIGN,), thinned=(EQUALS,)),
    "model_stock": Shared(
        "model_stock",
        Base.ANCHOR,
        whole={"filter_wise": Switch(None, False)},
        notes=("where the sources' changes point against each other the base is kept; mergekit goes past it",),
    ),
    "passthrough": Shared("weighted_average", Base.FILES, fixed={"weights": (1.0, 0.0)}),
}
"""mergekit's name -> how it is carried out here."""

OTHERS = {
    "arcee_fusion": "its threshold is taken from a random sample; use sce or breadcrumbs",
    "nearswap": "use slerp or weighted_average",
    "ram": "use sce or ties",
    "ramplus_tl": "use sce or ties",
}
"""Methods of mergekit that are not here, and what to use."""
