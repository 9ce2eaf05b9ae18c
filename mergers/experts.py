"""Modality merging in the words of arXiv 2304.14933: the experts of one checkpoint become one model that all modalities share.

    sources = expert_sources(read_checkpoint(place), used_by="retrieval")
    merger = interpolation(0.5, [source.name for source in sources])
    plan = plan_merge(merger, sources, output, config=SHARED_CONFIG)           # base=Source("seed", ...) for arithmetic

Nothing here merges: sources are expert views of one checkpoint (`sources/views.py`), methods are those of the table (`table.py`), and what
belongs to no expert passes through as it is (`sources/inside.py`). So any method of the table merges experts, under its own name. How many
layers there are, which have a vision-language expert and which parts are an expert's own, is read off the tensors' names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from mergers.checkpoints.checkpoint import Checkpoint
from mergers.merger import Merger, Need
from mergers.methods.linear import WeightedAverage
from mergers.methods.measured import Missing
from mergers.methods.regmean import RegMean
from mergers.methods.sequential_arithmetic import SequentialArithmetic
from mergers.methods.task_arithmetic import TaskArithmetic
from mergers.sources.source import Source
from mergers.sources.views import Expert
from mergers.table import ROWS, merger_class

if TYPE_CHECKING:
    from mergers.checkpoints.header import TensorEntry
    from mergers.distances.measure import Metrics, Pair
    from mergers.engine.execute import Executor

VISION, LANGUAGE, VISION_LANGUAGE = EXPERTS = ("v", "l", "vl")
"""The modalities' experts, as they stand in the names of tensors and of sources."""
SHARED_CONFIG = {"sharing": "shared"}
"""What the output's config.json says where the experts' says which parts are their own."""
APART, TOGETHER = "v and l", "vl where there is one, v and l elsewhere"
USED_BY = {"all": "all", "retrieval": APART, "vqa": TOGETHER, "nlvr2": TOGETHER}
"""Task -> the experts that it runs through. Retrieval takes an image or a text by itself; questions and comparisons take them together."""


def expert_sources(
    checkpoint: Checkpoint,
    experts: Sequence[str] | None = None,
    used_by: str = "all",
    *,
    origin: str = "",
    statistics: Mapping[str, TensorEntry] | None = None,
) -> tuple[Source, ...]:
    """The experts of a checkpoint as sources, each under its own name; those it has, in the order v, l, vl, unless `experts` are named.

    `used_by` leaves out what a task does not run through: "retrieval" the vision-language expert, "vqa" and "nlvr2" the others' tensors
    where a vision-language expert has its own. `statistics` are by the checkpoint's names, for all experts together; `origin` is for the
    model card. ConfigError for an unknown task or a request that leaves fewer than two experts, InputError for a checkpoint that has not
    the experts.
    """
    if used_by not in USED_BY:
        raise ConfigError(f"used_by: {unknown('task', used_by, USED_BY)}")
    components = {part for tensor in checkpoint.tensors for part in tensor.split(".")}
    there = [expert for expert in EXPERTS if expert in components]
    lacking = next((expert for expert in experts or () if expert not in components), None)
    if lacking is not None or len(there) + len(experts or ()) < 2:
        told = f"expert '{lacking}'" if lacking is not None else "experts"
        raise InputError(
            f"{checkpoint.path} has no {told}: no tensor's name has such a component (it has {', '.join(there) or 'none of v, l, vl'}); "
            "only a checkpoint whose modalities have weights of their own can be merged inside"
        )
    every = tuple(dict.fromkeys((*there, *(experts or ()))))
    names = [name for name in experts or every if USED_BY[used_by] != APART or name != VISION_LANGUAGE]
    if len(names) < 2:
        raise ConfigError(f"of the experts only {', '.join(names) or 'none'} would be merged (used_by: {used_by}); name v and l")
    yields = (VISION_LANGUAGE,) if USED_BY[used_by] == TOGETHER and VISION_LANGUAGE in names else ()
    views = [Expert(name, every, () if name in yields else yields) for name in names]
    return tuple(Source(view.name, checkpoint, view, origin, dict(statistics or {})) for view in views)


def interpolation(ratio: float = 0.5, experts: Sequence[str] = EXPERTS) -> WeightedAverage:
    """ratio * v + (1 - ratio) * l; with a vision-language expert two thirds of that, and a third of it.

    In layers that lack the vision-language expert the weights of the others are scaled to sum to 1, which gives the first formula back.
    """
    if not 0 <= ratio <= 1:
        raise ConfigError(f"ratio is {ratio}; it is the vision expert's weight against the language expert's and must lie between 0 and 1")
    share = 2 / 3 if VISION_LANGUAGE in experts else 1.0
    weights = {VISION: share * ratio, LANGUAGE: share * (1 - ratio), VISION_LANGUAGE: 1 / 3}
    if sorted(experts) not in (sorted(EXPERTS[:2]), sorted(EXPERTS)):
        raise ConfigError(f"interpolation is between v and l, or v, l and vl, not {', '.join(experts)}; use weighted_average with weights")
    return WeightedAverage(tuple(weights[name] for name in experts))


def modality_arithmetic(scale: float = 1.0) -> TaskArithmetic:
    """seed + scale * sum over the experts m of (W_m - seed). The order of the experts does not count."""
    return TaskArithmetic(scale=scale)


def sequential_arithmetic(scale: float = 1.0) -> SequentialArithmetic:
    """What the paper's published program computes in place of `modality_arithmetic`: the order of the experts counts."""
    return SequentialArithmetic(scale)


def modality_regmean(off_diagonal: float = 1.0, ridge: float = 1e-6, missing: Missing = "error") -> RegMean:
    """Matrices by regression on each expert's Gram, biases and norms by their plain mean, every expert counting the same."""
    return RegMean(None, off_diagonal, ridge, missing)


METHODS: Mapping[str, tuple[str, Callable[..., Merger]]] = {
    "interpolation": ("weighted_average", interpolation),
    "arithmetic": ("task_arithmetic", modality_arithmetic),
    "sequential_arithmetic": ("sequential_arithmetic", sequential_arithmetic),
    "regmean": ("regmean", modality_regmean),
}
"""The paper's ways to merge -> the row of the merge table that carries each out, and its constructor."""


def expert_merger(method: str, parameters: Mapping[str, Any], experts: Sequence[str] = EXPERTS) -> Merger:
    """The method of `METHODS` or of the merge table with these hyperparameters, for experts of these names. ConfigError if there is no
    such method or hyperparameter, or its value does not do."""
    if method not in METHODS and method not in ROWS:
        raise ConfigError(unknown("method", method, [*METHODS, *ROWS]))
    make = METHODS[method][1] if method in METHODS else merger_class(method)
    takes = {name: parameter for name, parameter in signature(make).parameters.items() if name != "experts"}
    for name, value in parameters.items():
        if name not in takes:
            raise ConfigError(f"{method}: {unknown('parameter', name, takes)}")
        check_kind(method, name, value, takes[name].default)
    lacking = next((name for name, one in takes.items() if one.default is Parameter.empty and name not in parameters), None)
    if lacking is not None:
        raise ConfigError(f"{method} needs {lacking}; give it a value, e.g. {lacking}: 0.5")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in parameters.items()}
    merger = make(**given, **({"experts": experts} if method == "interpolation" else {}))
    merger.check(tuple(experts))
    return merger


def check_kind(method: str, name: str, value: Any, default: Any) -> None:
    """Raise ConfigError if a hyperparameter that is a number, a text or true/false otherwise is given something else."""
    if isinstance(default, bool) or isinstance(value, bool):
        right, kind = isinstance(value, bool) and isinstance(default, bool), "true or false" if isinstance(default, bool) else "a number"
    elif isinstance(default, str):
        right, kind = isinstance(value, str), "a text"
    else:
        numbers = value if isinstance(value, list | tuple) else [value]
        right, kind = all(isinstance(one, int | float) and math.isfinite(one) for one in numbers), "a number"
    if not right:
        raise ConfigError(f"{method}: {name} is {value!r}; give {kind}")


def needs_base(method: str) -> bool:
    """Whether a method measures the experts from the checkpoint that they started from."""
    return row_of(method).base is Need.REQUIRED


def needs_statistic(method: str) -> str | None:
    """What must have been measured on the experts: "gram", "fisher", or nothing."""
    statistic = row_of(method).statistic
    return statistic.name if statistic else None


def row_of(method: str) -> Any:
    """The class that carries a method out."""
    return merger_class(METHODS[method][0] if method in METHODS else method)


def expert_distances(
    checkpoint: Checkpoint,
    experts: Sequence[str] | None = None,
    base: Checkpoint | None = None,
    *,
    density: float = 0.2,
    executor: Executor | None = None,
) -> dict[Pair, Metrics]:
    """How far the experts of a checkpoint are apart: pair -> the metrics of `distances/metrics.py` over all tensors that both have, taken
    together, with the number of their `elements`.

    With a `base`, the seed, their task vectors are compared. A pair without a common tensor has 0 elements. Raises as `expert_sources` and
    `measure` do.
    """
    from mergers.distances.measure import measure

    seed = None if base is None else Source("seed", base)
    found = measure(expert_sources(checkpoint, experts), seed, density=density, executor=executor)
    return {pair: found.total(pair) for pair in found.pairs}
