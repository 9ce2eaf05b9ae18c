"""What is refused before a search starts: everything that the spec, the suite and the checkpoints' headers can decide.

Both ends of every range are put to the method's own check, in every combination (up to a limit), and so is every point that is known
ahead (a grid's, random draws).
"""

from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice, product
from pathlib import Path

from evaluators.suite import Suite
from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from mergers.checkpoints.checkpoint import read_checkpoint
from mergers.checkpoints.header import read_header
from mergers.live import gather_live, plan_live
from mergers.merger import Need
from mergers.sources.source import Source
from mergers.table import merger_class
from pipeline.config.merge_values import knobs_of
from pipeline.search.choosing import check_enough, grid_points
from pipeline.search.goal import shares_of
from pipeline.search.points import METHOD, axes_of, merger_at, methods_of, target_of
from pipeline.search.spec import Algorithm, Axis, Point, SearchSpec, Value
from tasks.task import Split

CORNERS = 4096
"""How many combinations of ends are tried, at most, for each method."""


def check_spec(spec: SearchSpec, sources: Sequence[str], based: bool, measured: Collection[str] = ()) -> None:
    """Raise ConfigError for a search that no sources of these names could honour; opens nothing. `based`: there is a base; `measured`: the
    sources that come with statistics."""
    methods = methods_of(spec)
    axis = next((axis for axis in spec.axes if axis.name == METHOD), None)
    if axis is not None and not axis.values:
        raise ConfigError("search: method has no range from low to high; name the methods as values")
    for method in methods:
        kind = merger_class(method)
        lacking = [name for name in sources if name not in measured] if getattr(kind, "statistic", None) is not None else []
        if lacking:
            raise ConfigError(f"search: {method} needs the statistics of every source, and {lacking[0]} comes with none; name their file")
        if getattr(kind, "base", Need.NO) is Need.REQUIRED and not based:
            raise ConfigError(f"search: {method} measures every source from a base checkpoint; name one as base")
    if based and all(getattr(merger_class(method), "base", Need.NO) is Need.NO for method in methods):
        raise ConfigError(f"search: {', '.join(methods)} has no use for a base, but one is given; leave it out")
    if measured and all(getattr(merger_class(method), "statistic", None) is None for method in methods):
        raise ConfigError(f"search: {', '.join(methods)} reads no statistics, but some are given; leave them out")
    known = sorted({name for method in methods for name in knobs_of(method)})
    for name in [axis.name for axis in spec.axes if axis.name != METHOD] + [name for name, _ in spec.fixed]:
        if target_of(name).knob not in known:
            raise ConfigError("search: " + unknown(f"parameter of {' or '.join(methods)}", target_of(name).knob, known))
    both = sorted({name for name, _ in spec.fixed} & {axis.name for axis in spec.axes})
    if both:
        raise ConfigError(f"search: {both[0]} is both searched and fixed; keep one of the two")
    for method in methods:
        for point in corners(spec, method):
            merger_at(spec, point, sources)


def check_search(spec: SearchSpec, sources: Sequence[str], based: bool, measured: Collection[str] = ()) -> None:
    """`check_spec`, and that there are as many points as are to be tried, each of which its method takes; opens nothing."""
    check_spec(spec, sources, based, measured)
    if spec.algorithm is Algorithm.GRID:
        check_points(spec, grid_points(spec), sources)
    else:
        check_enough(spec)
    if spec.algorithm is Algorithm.OPTUNA and find_spec("optuna") is None:
        raise ConfigError("search: the algorithm optuna needs the package of that name; pip install optuna")


def corners(spec: SearchSpec, method: str) -> list[Point]:
    """The combinations of the ends of ranges, and of all values where there are values."""
    axes = axes_of(spec, method)
    names = [axis.name for axis in axes]
    chosen: dict[str, Value] = {METHOD: method} if any(axis.name == METHOD for axis in spec.axes) else {}
    return [{**chosen, **dict(zip(names, values, strict=True))} for values in islice(product(*map(ends, axes)), CORNERS)]


def ends(axis: Axis) -> tuple[Value, ...]:
    """Both ends of a range, or all values."""
    return axis.values or axis.grid(2)


def check_suite(spec: SearchSpec, suite: Suite, new: str | None) -> None:
    """Raise ConfigError for a suite that asks other than validation questions or a goal it does not yield, InputError for a task that has
    no validation questions."""
    if suite.split is not Split.VALIDATION:
        raise ConfigError(f"search: the suite asks the {suite.split.value} split; choices are made on validation data only")
    shares_of(spec, suite, new)
    for task in suite.tasks:
        try:
            found = len(task.examples(Split.VALIDATION, 1))
        except InputError as error:
            raise InputError(f"search: task {task.name!r} has no validation questions to choose by: {error}") from error
        if not found:
            raise InputError(f"search: task {task.name!r} has no validation questions to choose by; give it some, or leave it out")


def check_points(spec: SearchSpec, points: Sequence[Point], sources: Sequence[str]) -> None:
    """Raise ConfigError, naming the point, if a method refuses one of `points`."""
    for point in points:
        merger_at(spec, point, sources)


def check_sources(spec: SearchSpec, sources: Mapping[str, Path], base: Path | None, statistics: Mapping[str, Path] | None = None) -> None:
    """Raise ConfigError or InputError for checkpoints that the methods cannot merge, from their headers."""
    opened, anchor = open_sources(sources, base, statistics or {})
    for method in methods_of(spec):
        merger = merger_at(spec, corners(spec, method)[0], tuple(sources))
        plan_live(gather_live(opened, None if merger.base is Need.NO else anchor, partial=False), merger)


def open_sources(sources: Mapping[str, Path], base: Path | None, statistics: Mapping[str, Path]) -> tuple[list[Source], Source | None]:
    """The sources, with what was measured on them, and the base, by their headers. InputError for what is not there or damaged."""
    lacking = next((f"{name}, {place}" for name, place in statistics.items() if not place.is_file()), None)
    if lacking is not None:
        raise InputError(f"search: the statistics of {lacking}, are not there; name the safetensors file of what was measured on it")
    measured = {name: read_header(place) for name, place in statistics.items()}
    opened = [Source(name, read_checkpoint(place), statistics=measured.get(name, {})) for name, place in sources.items()]
    return opened, Source("base", read_checkpoint(base)) if base else None
