"""alpha for sequential WiSE-FT from the weights alone: no data, no evaluation, one pass over three checkpoints.

With u = previous - base (what all stages before have learned) and v = tuned - previous (what the last stage has learned), WiSE-FT goes a
part of the last step:  W = alpha * previous + (1 - alpha) * tuned = previous + (1 - alpha) * v.  alpha is chosen to minimise a surrogate of
what the past tasks lose by leaving `previous` and what the new task loses by not reaching `tuned`:

    J(W) = c(W - previous) + |W - tuned|^2 / |v|^2

Each loss is taken for a quadratic with its minimum at the model tuned for it, and for as curved as if each task had gained the same amount
by its step: a step of length d that gains g in a quadratic has curvature 2 g / d^2. So the new task's curvature is 1 / |v|^2, in units of
that gain, and a past task's is one over the square of its own step. Of those steps only the sum u is known; `past` tasks are taken to have
gone steps of equal length at right angles, |u|^2 / past each. How a past task's loss is curved in other directions than its own, weights do
not tell, so there are two rules, the extremes between which the truth is to be expected:

    ISOTROPIC   alike in all directions:   c(x) = past^2 |x|^2 / |u|^2          s = past^2
    ALONG_PAST  along its own step only:   c(x) = past (x . u)^2 / |u|^4        s = past * cos(u, v)^2     (x . u in equal parts per task)

Both give   alpha = s r^2 / (1 + s r^2),   r = |v| / |u|.

So a last step that is long beside the past is held back more. With one past task and steps of equal length, ISOTROPIC keeps half of each
model; ALONG_PAST does so only where the last step repeats or undoes the past one, and keeps all of `tuned` where the two are at right
angles. Equal steps at right angles under ISOTROPIC give alpha = past / (past + 1): the running mean of the tasks' models. ALONG_PAST counts
a step further along the past like one back, as a quadratic must, and never gives a larger alpha than ISOTROPIC.

The rules are this project's own. What is assumed above is not known to hold of a network (curvature differs from weight to weight by orders
of magnitude; the merges before have shortened the steps in u): compare with a constant alpha and with a search before trusting one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from glob import escape
from typing import TYPE_CHECKING

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from mergers.depth import numbers_in, towers
from mergers.distances.measure import Distances, measure
from mergers.distances.metrics import Column
from mergers.merger import Merger
from mergers.methods.linear import WiseFT
from mergers.schedule import Schedule, Scheduled
from mergers.sources.names import modern, steps_of
from mergers.sources.source import Source, anchor_of

if TYPE_CHECKING:
    from mergers.engine.counting import Executor, Progress

OUTSIDE = "outside the layers"
"""The group of embeddings, final norms, output heads, projectors."""
Place = tuple[str, int]
"""(prefix of a tower of layers, number of the layer in it)."""


class Curvature(StrEnum):
    """In which directions a past task's loss is taken to be curved: in all alike, or along its own step only."""

    ISOTROPIC = "isotropic"
    ALONG_PAST = "along_past"


@dataclass(frozen=True)
class GroupAlpha:
    """What was chosen for a group of tensors, and why: `ratio` = |v| / |u|, None where u is 0, so that the whole model's alpha was taken;
    `cosine` = cos(u, v), None where either is 0."""

    group: str
    alpha: float
    ratio: float | None
    cosine: float | None
    elements: int


@dataclass(frozen=True)
class AdaptiveAlpha:
    """The alpha of the whole model, and of each group of layers if groups were asked for.

    `rules` are those of a schedule, by the names that a merge of previous and tuned has; one rule `*` without groups.
    """

    curvature: Curvature
    past: int
    whole: GroupAlpha
    groups: tuple[GroupAlpha, ...]
    rules: tuple[tuple[str, float], ...]

    @property
    def schedule(self) -> Schedule:
        """alpha by tensor."""
        return Schedule(self.rules)

    @property
    def merger(self) -> Merger:
        """WiSE-FT with what was chosen."""
        plain = WiseFT(self.whole.alpha)
        return Scheduled(plain, (("alpha", self.schedule),)) if self.groups else plain


def adaptive_alpha(
    previous: Source,
    tuned: Source,
    base: Source,
    *,
    curvature: Curvature = Curvature.ISOTROPIC,
    past: int = 1,
    blocks: int = 0,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> AdaptiveAlpha:
    """alpha by the rule of `curvature` for the whole model; with `blocks`, of each tower's layers in so many groups of equal depth too.

    `past` is the number of tasks that `previous` has learned since `base`. Tensors outside numbered layers are a group of their own. Sums
    are exact (`distances/measure.py`): any `executor` gives the same bits. Raises ConfigError for numbers that make no sense, InputError
    for sources that do not fit one another, and where previous is the base: then there is no past to set the last step against.
    """
    if curvature not in list(Curvature):
        raise ConfigError(unknown("curvature", str(curvature), [each.value for each in Curvature]))
    if past < 1 or blocks < 0:
        raise ConfigError(
            f"past is {past} and blocks {blocks}; past is the number of tasks learned before, 1 or more, and blocks 0 or more"
        )
    found = measure([previous, tuned], base, density=1.0, executor=executor, progress=progress)
    rule = Rule(Curvature(curvature), past, found)
    names = merged_names(found, previous, tuned, base)
    whole = rule.choose("the model", tuple(names), None)
    if not blocks:
        return AdaptiveAlpha(rule.curvature, past, whole, (), (("*", whole.alpha),))
    members = groups_of(names, blocks)
    chosen = {group: rule.choose(group, tuple(held), whole) for group, held in members.items()}
    layers = {place: chosen[group].alpha for group, held in members.items() for place in held.values() if place}
    rules = [(f"{escape(prefix + '.' if prefix else '')}{number}.*", alpha) for (prefix, number), alpha in sorted(layers.items())]
    rest = chosen.get(OUTSIDE, whole).alpha
    return AdaptiveAlpha(rule.curvature, past, whole, tuple(chosen.values()), (*rules, ("*", rest)))


@dataclass(frozen=True)
class Rule:
    """How alpha follows from what was measured of two vectors since the base: u (previous) and u + v (tuned)."""

    curvature: Curvature
    past: int
    found: Distances

    def choose(self, group: str, tensors: Sequence[str], whole: GroupAlpha | None) -> GroupAlpha:
        """What the tensors of a group lead to; that of the `whole` where the past has not touched them, InputError if there is none."""
        sums = self.found.sums[self.found.pairs[0]]
        elements, step, past, product = (
            math.fsum(float(sums[name][column]) for name in tensors)
            for column in (Column.ELEMENTS, Column.SQUARED_DIFFERENCE, Column.SQUARED_FIRST, Column.PRODUCT)
        )
        if past == 0 and whole is None:
            previous, _ = self.found.sources
            raise InputError(
                f"'{previous}' is the same as base '{self.found.base}', so there is no past that the last step could be set against; give "
                "alpha a number at the first stage"
            )
        cosine = min(1.0, max(-1.0, (product - past) / math.sqrt(step * past))) if step and past else None
        if past == 0:
            assert whole is not None
            return GroupAlpha(group, whole.alpha, None, None, int(elements))
        ratio = math.sqrt(step / past)
        return GroupAlpha(group, alpha_of(self.curvature, self.past, ratio, cosine or 0.0), ratio, cosine, int(elements))


def alpha_of(curvature: Curvature, past: int, ratio: float, cosine: float) -> float:
    """s r^2 / (1 + s r^2) of the rule, from `ratio` r = |v| / |u| and the cosine of u and v: from 0 to 1."""
    pull = (past**2 if curvature is Curvature.ISOTROPIC else past * cosine**2) * ratio * ratio
    return pull / (1 + pull) if math.isfinite(pull) else 1.0


def merged_names(found: Distances, previous: Source, tuned: Source, base: Source) -> dict[str, str]:
    """Name of each tensor that was measured (as the base calls it) -> its name where previous and tuned are merged."""
    anchor = anchor_of((previous, tuned))
    home = {modern(name, steps_of(anchor.checkpoint.config)): name for name in anchor.tensors()}
    steps = steps_of(anchor_of((previous, tuned), base).checkpoint.config)
    return {name: home.get(modern(name, steps), name) for name in found.groups_of}


def groups_of(names: Mapping[str, str], blocks: int) -> dict[str, dict[str, Place | None]]:
    """Group -> its tensors, each with its layer: those of each tower, cut into so many groups of equal depth, then what lies outside.

    `names` maps each tensor to the name that tells its place.
    """
    deepest = towers(names.values())
    groups: dict[tuple[str, int], dict[str, Place | None]] = {}
    for name, called in names.items():
        place = next(((prefix, number) for prefix, number in numbers_in(called) if prefix in deepest), None)
        key = (place[0], place[1] * blocks // (deepest[place[0]] + 1)) if place else ("", blocks)
        groups.setdefault(key, {})[name] = place
    return {label(list(held.values())): held for _, held in sorted(groups.items(), key=lambda group: (group[0][1] == blocks, group[0]))}


def label(places: Sequence[Place | None]) -> str:
    """A group in words: its tower and the layers it takes in."""
    held = [place for place in places if place]
    if not held:
        return OUTSIDE
    first, last = min(held)[1], max(held)[1]
    return f"{held[0][0]} {first}" if first == last else f"{held[0][0]} {first} to {last}"
