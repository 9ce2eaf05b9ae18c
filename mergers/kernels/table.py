"""Which methods have compiled code, and the numbers that each hands to it.

A kernel of the table gets a method, what the method would see (`Inputs`, without values), and the values: flat arrays, one per source, the
base's apart. It fills `out`, or returns False where this case is left to torch. The numbers are the method's own: nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from mergers.engine.served import installed
from mergers.merger import Inputs, Merger
from mergers.methods.dare import DareTies
from mergers.methods.draws import LEVELS, draws
from mergers.methods.ema import Ema
from mergers.methods.gram import GramMethod, is_average
from mergers.methods.karcher import Karcher
from mergers.methods.linear import WeightedAverage, WiseFT
from mergers.methods.slerp import Slerp, SphericalAverage
from mergers.methods.sparse import SparseMethod, ThresholdMethod, at
from mergers.methods.task_arithmetic import TaskArithmetic
from mergers.methods.threshold import BRACKET, LOWER_BINS, SAMPLE_UPPER, UPPER, UPPER_BINS
from mergers.methods.ties import Ties, TiesPerTensor

if TYPE_CHECKING:
    from mergers.engine.rounds import Tally
    from mergers.merger import Array

Arrays = tuple["Array", ...]
Merging = Callable[[Any, Inputs, Arrays, "Array | None", "Array"], bool]
Counting = Callable[[Any, int, Inputs, Arrays, "Array | None", "Tally"], bool]


@dataclass(frozen=True)
class Kernel:
    """Compiled code for a method: its writing pass, and its counting rounds if it has any."""

    merge: Merging
    count: Counting | None = None


def kernel_for(merger: Merger) -> Kernel | None:
    """The compiled code for a method, if it has some and there is a compiler."""
    return KERNELS.get(type(merger)) if compiled() else None


@cache
def compiled() -> Any:
    """The module of compiled formulas; None where numba is not installed or finds no place for what it compiles."""
    if not installed():
        return None
    try:
        from mergers.kernels import formulas
    except (ImportError, RuntimeError):  # numba's word for having no place to write to
        return None
    return formulas if formulas.FUSED else None


def averaged(merger: WeightedAverage | WiseFT | Ema, inputs: Inputs, sources: Arrays, base: Array | None, out: Array) -> bool:
    """A weighted mean (`linear.average`)."""
    return average(sources, merger.coefficients(inputs.name, inputs.positions), out)


def combined(merger: Slerp | SphericalAverage | Karcher, inputs: Inputs, sources: Arrays, base: Array | None, out: Array) -> bool:
    """A sum that the Gram matrix weighs (`gram.combine`)."""
    if len(sources) == 1:
        return False
    coefficients = merger.coefficients(inputs)
    if is_average(coefficients):
        return average(sources, coefficients, out)
    compiled().add_products(sources, single(coefficients), out)
    return True


def average(sources: Arrays, weights: Sequence[float], out: Array) -> bool:
    """sum_i w_i x_i; a source of weight 0 takes no part. What lies between two is rounded to their own dtype, so `out` must have it."""
    kept = [(source, weight) for source, weight in zip(sources, weights, strict=True) if weight > 0]
    if len(kept) == 2 and out.dtype == sources[0].dtype:
        compiled().interpolate(kept[0][0], kept[1][0], single(kept[1][1]), out)
        return True
    if len(kept) > 2:
        compiled().accumulate(tuple(source for source, _ in kept), single([weight for _, weight in kept]), out)
        return True
    return False


def task_vectors(merger: TaskArithmetic, inputs: Inputs, sources: Arrays, base: Array | None, out: Array) -> bool:
    """The sum of task vectors (`TaskArithmetic.merge`)."""
    weights = merger.coefficients(inputs.name, inputs.positions)
    kept = [(source, weight) for source, weight in zip(sources, weights, strict=True) if weight * merger.scale != 0]
    if not kept or (len(weights) == 1 and weights[0] * merger.scale == 1):
        return False
    numbers = single([weight for _, weight in kept])
    compiled().add_task_vectors(tuple(source for source, _ in kept), base, numbers, single(merger.scale), out)
    return True


def trimmed(merger: Ties, inputs: Inputs, sources: Arrays, base: Array | None, out: Array) -> bool:
    """The consensus of changes above a threshold (`Ties.merge`)."""
    import numpy as np

    found = merger.thresholds(inputs)
    if found is None:
        return len(sources) > 1 and consensus(merger, inputs, sources, base, Thinning.of(len(sources)), out)
    # kept are magnitudes above the float32 just below the threshold; a threshold of 0 keeps all
    least = [np.nextafter(np.float32(each), np.float32(0)) if each else -1.0 for (each,) in found]
    return consensus(merger, inputs, sources, base, Thinning.of(len(sources), least=least), out)


def dropped(merger: DareTies, inputs: Inputs, sources: Arrays, base: Array | None, out: Array) -> bool:
    """The consensus of changes that are kept at random (`DareLinear.merge`)."""
    levels = merger.levels(inputs)
    if all(level == LEVELS for level in levels):
        return False
    drawn = tuple(
        draws(merger.seed, inputs.sources[index], inputs.name, inputs.start, len(out) if level < LEVELS else 0)
        for index, level in enumerate(levels)
    )
    factors, shared = merger.rescaling(levels)
    return consensus(merger, inputs, sources, base, Thinning.of(len(sources), drawn, levels, factors), out, shared)


@dataclass(frozen=True)
class Thinning:
    """Which changes take part, by source: those above `least` whose draw is below the level (all, where none are drawn), times a factor."""

    least: Array
    draws: Arrays
    levels: Array
    factors: Array

    @classmethod
    def of(
        cls,
        count: int,
        drawn: Arrays = (),
        levels: Sequence[int] = (),
        factors: Sequence[float] = (),
        least: Sequence[float] = (),
    ) -> Thinning:
        """What is not given keeps everything."""
        import numpy as np

        nothing = np.empty(0, np.uint16)
        return cls(
            single(least or (-1.0,) * count),
            drawn or (nothing,) * count,
            np.array(levels or (LEVELS,) * count, np.int32),
            single(factors or (1.0,) * count),
        )


def consensus(
    merger: SparseMethod, inputs: Inputs, sources: Arrays, base: Array | None, thinned: Thinning, out: Array, factor: float = 1.0
) -> bool:
    """Elect signs and add what agrees (`deltas.add_consensus`). Comparing loses what is not a number: that is left to torch."""
    code = compiled()
    if not all(code.finite(values) for values in (*sources, base)):
        return False
    weights = merger.weights_for(inputs.positions)
    smallest = min((weight for weight in weights if weight > 0), default=1.0) if merger.normalize else 0.0
    numbers = (thinned.least, thinned.draws, thinned.levels, thinned.factors, single(weights))
    code.consensus(sources, base, *numbers, single(merger.scale * factor), single(smallest), out)
    return True


def gram(merger: GramMethod, number: int, inputs: Inputs, sources: Arrays, base: Array | None, tally: Tally) -> bool:
    """The dot products of a block (`gram.gram_of`)."""
    import numpy as np

    from mergers.kernels import counts

    found = np.empty((len(sources), len(sources)))
    for i, row in enumerate(sources):
        for j, other in enumerate(sources[: i + 1]):
            found[i, j] = found[j, i] = counts.dot(row, other) if base is None else counts.dot_of_changes(row, other, base)
    tally.add(found)
    return True


def magnitudes(merger: ThresholdMethod, number: int, inputs: Inputs, sources: Arrays, base: Array | None, tally: Tally) -> bool:
    """How many changes have which magnitude (`threshold.count`), added to the tally in place."""
    from mergers.kernels import counts

    rows, known = inputs.positions[-1] + 1, inputs.known
    whole = number in (SAMPLE_UPPER, UPPER)
    starts = None if known is None or whole else known[..., 0]
    bins = () if starts is None else (starts.shape[1], LOWER_BINS + 2 * (number == BRACKET))
    table = tally.room((rows, *(bins or (UPPER_BINS,))))
    for position, source in zip(inputs.positions, sources, strict=True):
        if at(merger.density, position) == 1:
            continue
        if starts is None:
            counts.add_upper(source, base, table[position])
            continue
        for start, places in zip(starts[position].tolist(), table[position], strict=True):
            (counts.add_bracket if number == BRACKET else counts.add_lower)(source, base, start, places)
    return True


def single(values: float | Sequence[float]) -> Any:
    """Numbers in float32, as torch takes them."""
    import numpy as np

    return np.array(values, np.float32) if isinstance(values, Sequence) else np.float32(values)


KERNELS: dict[type, Kernel] = {
    WeightedAverage: Kernel(averaged),
    WiseFT: Kernel(averaged),
    Ema: Kernel(averaged),
    TaskArithmetic: Kernel(task_vectors),
    Slerp: Kernel(combined, gram),
    SphericalAverage: Kernel(combined, gram),
    Karcher: Kernel(combined, gram),
    Ties: Kernel(trimmed, magnitudes),
    TiesPerTensor: Kernel(trimmed, magnitudes),
    DareTies: Kernel(dropped),
}
