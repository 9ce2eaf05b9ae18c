"""The figures of a modality-merging experiment, from plain data: one `Outcome` per arm and seed.

An arm is one model that was asked: unmerged, seed only, or merged with one setting of one method (its family). It is asked as it comes out
of the merge ("merged") and perhaps again after a short fine-tuning ("tuned"). A family "X on the way" holds models made of the experts as
they were at earlier steps of their pretraining, its value the step; its arms are called "NAME, step N" after the arm NAME that is the same
merge of the finished experts. Figures are means and standard errors over seeds; two arms are compared seed by seed, so that what a seed
makes easy or hard for both drops out. Light to import: no matplotlib, no torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from evaluators.scores import TaskScore
from foundation.errors import InputError
from pipeline.report.comparison import Estimate, estimate

UNMERGED, SEED_ONLY, AGNOSTIC, MODEL = "unmerged", "seed only", "agnostic", "model"
NOT_MERGED = (UNMERGED, SEED_ONLY, AGNOSTIC, MODEL)
"""Families of models that are not merged: the lines between which the merges lie, and a model that is only asked."""
ON_THE_WAY = " on the way"
DECIMALS = 9
"""To which scores are compared: they are shares of samples, so what differs less is the same but for rounding."""
RECALLS = ("TR@1", "TR@5", "TR@10", "IR@1", "IR@5", "IR@10")


class When(StrEnum):
    """Which model of an arm was asked: as merged, or after fine-tuning."""

    MERGED = "merged"
    TUNED = "tuned"


@dataclass(frozen=True)
class Outcome:
    """One arm and seed. `value` is the ratio, scale, off-diagonal or step on the family's axis; None for a family without one.

    `merged` and `tuned` map a set's name ("digits_captions"), and the names of its parts ("digits_captions/TR@1"), to scores; `tuned` is
    None where nothing was fine-tuned, else it comes after `steps` steps; `merged` is empty where only the fine-tuned model was asked, and
    may lack sets that need what fine-tuning adds. `distances` maps a metric ("l2", or with what was measured before
    a slash, "experts/l2") to its value; leave out a metric that is not measured, None is one that is not defined.
    """

    arm: str
    family: str
    value: float | None
    seed: int
    merged: Mapping[str, TaskScore]
    tuned: Mapping[str, TaskScore] | None
    distances: Mapping[str, float | None]
    steps: int = 0

    def scores(self, when: When) -> Mapping[str, TaskScore]:
        """The scores of the model as merged or after fine-tuning; empty where it was not fine-tuned."""
        return self.merged if when is When.MERGED else self.tuned or {}


@dataclass(frozen=True)
class Setting:
    """An arm with its outcomes by seed."""

    arm: str
    family: str
    value: float | None
    outcomes: tuple[Outcome, ...]

    @property
    def is_merge(self) -> bool:
        """Whether the arm's model came out of a merge."""
        return self.family.removesuffix(ON_THE_WAY) not in NOT_MERGED

    @property
    def on_the_way(self) -> bool:
        """Whether the experts had not learned to their end."""
        return self.family.endswith(ON_THE_WAY)

    @property
    def merge(self) -> str:
        """The arm that is the same merge of the finished experts: "interpolation 0.5" of "interpolation 0.5, step 20"."""
        return self.arm.rsplit(", step ", 1)[0] if self.on_the_way else self.arm

    def by_seed(self, name: str, when: When) -> dict[int, float]:
        """Seed -> the score under `name`, of the seeds that have it."""
        return {each.seed: each.scores(when)[name].accuracy for each in self.outcomes if name in each.scores(when)}

    def figure(self, name: str, when: When) -> Estimate | None:
        """Mean and standard error over the seeds that have the score; None where none has."""
        found = self.by_seed(name, when)
        return estimate(list(found.values())) if found else None

    def bar(self, name: str, when: When) -> float:
        """What an error bar shows: the standard error over seeds, or of a single seed over samples."""
        value = self.figure(name, when)
        if value is None or value.stderr is not None:
            return 0.0 if value is None else value.stderr or 0.0
        return next(each.scores(when)[name].stderr for each in self.outcomes if name in each.scores(when))


@dataclass(frozen=True)
class Difference:
    """`second` minus `first` over the seeds both have; `better`: in how many of them `second` scored higher."""

    first: str
    second: str
    value: Estimate
    better: int


@dataclass(frozen=True)
class Spread:
    """How far the merges of the finished experts lie apart, beside how well two of them can be told apart.

    `lowest` and `highest`: the least and the greatest mean of a merge. `noise`: the median standard error of the paired difference between
    two merges, over all pairs; None where no two merges share two seeds.
    """

    when: When
    merges: int
    lowest: float
    highest: float
    noise: float | None


def settings_of(outcomes: Sequence[Outcome]) -> list[Setting]:
    """The outcomes grouped by arm, in the order the arms first appear; seeds in ascending order.

    InputError for no outcomes, an arm that has a seed twice or whose seeds differ in family, value or steps, for values and distances that
    are not finite, and for scores that one outcome has and another lacks.
    """
    if not outcomes:
        raise InputError("no outcomes to report; evaluate at least one model")
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        check_numbers(outcome)
        groups.setdefault(outcome.arm, []).append(outcome)
    check_names(outcomes)
    return [setting_of(arm, members) for arm, members in groups.items()]


def setting_of(arm: str, members: Sequence[Outcome]) -> Setting:
    """One arm from its outcomes."""
    ordered = tuple(sorted(members, key=lambda outcome: outcome.seed))
    seeds = [outcome.seed for outcome in ordered]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"arm {arm!r} holds seeds {seeds}; report each seed once")
    first = ordered[0]
    steps = {outcome.steps for outcome in ordered if outcome.tuned is not None}
    if any((each.family, each.value) != (first.family, first.value) for each in ordered) or len(steps) > 1:
        raise InputError(f"arm {arm!r}: its seeds differ in family, value or steps; give what differs an arm of its own")
    return Setting(arm, first.family, first.value, ordered)


def check_numbers(outcome: Outcome) -> None:
    """InputError for a value, a score or a distance that is no finite number."""
    scores = {f"{when} {name}": score.accuracy for when in When for name, score in outcome.scores(when).items()}
    numbers = {"value": outcome.value, **scores, **{f"distance {metric}": value for metric, value in outcome.distances.items()}}
    bad = [name for name, number in numbers.items() if number is not None and not math.isfinite(number)]
    if bad:
        raise InputError(f"arm {outcome.arm!r}, seed {outcome.seed}: {', '.join(bad)} is not a finite number; evaluate or measure it again")


def check_names(outcomes: Sequence[Outcome]) -> None:
    """InputError unless every set that was asked has a score of its own, with the same parts in all outcomes."""
    first: dict[str, set[str]] = {}
    for outcome in outcomes:
        for when in When:
            found: dict[str, set[str]] = {}
            for name in outcome.scores(when):
                found.setdefault(name.split("/")[0], set()).add(name)
            for asked, names in found.items():
                apart = sorted((names ^ first.setdefault(asked, names)) | ({asked} - names))
                if apart:
                    held = "alone has" if apart[0] in names else "lacks"
                    where = f"arm {outcome.arm!r}, seed {outcome.seed} {held} the score of {apart[0]!r} ({when})"
                    raise InputError(f"{where}; ask every model the same, and give the mean over a set's parts under its own name")
    if not first:
        raise InputError(f"none of {len(outcomes)} outcomes has a score; evaluate at least one model")


def names_of(settings: Sequence[Setting]) -> list[str]:
    """All names of scores, in the order of the outcomes."""
    scores = (each.scores(when) for setting in settings for each in setting.outcomes for when in When)
    return list(dict.fromkeys(name for held in scores for name in held))


def sets_of(settings: Sequence[Setting]) -> list[str]:
    """The sets that were asked."""
    return [name for name in names_of(settings) if "/" not in name]


def parts_of(settings: Sequence[Setting], asked: str) -> list[str]:
    """The names of a set's parts: recalls in their order, then others that stand beside them."""
    found = [name for name in names_of(settings) if name.startswith(f"{asked}/")]
    recalls = [f"{asked}/{recall}" for recall in RECALLS if f"{asked}/{recall}" in found]
    return recalls + [name for name in found if name not in recalls]


def whens_of(settings: Sequence[Setting], asked: str) -> list[When]:
    """Whether a set was asked as merged, after fine-tuning, or both."""
    return [when for when in When if any(setting.figure(asked, when) for setting in settings)]


def tuned_words(settings: Sequence[Setting]) -> str | None:
    """ "after 60 steps of fine-tuning", without a number where arms differ or do not say; None where nothing was fine-tuned."""
    steps = {each.steps for setting in settings for each in setting.outcomes if each.tuned is not None}
    if not steps:
        return None
    return f"after {steps.pop()} steps of fine-tuning" if len(steps) == 1 and 0 not in steps else "after fine-tuning"


def reference_of(settings: Sequence[Setting], family: str) -> Setting | None:
    """The first arm of a family that is not merged; None where there is none."""
    return next((setting for setting in settings if setting.family == family), None)


def unmerged_of(settings: Sequence[Setting], setting: Setting) -> Setting | None:
    """The unmerged model of the same experts: of the same step, for an arm on the way; None where it was not asked."""
    if not setting.on_the_way:
        return reference_of(settings, UNMERGED)
    return next((each for each in settings if each.family == UNMERGED + ON_THE_WAY and each.value == setting.value), None)


def plain_merge(settings: Sequence[Setting]) -> Setting | None:
    """The merge that asks for no choice: the interpolation with ratio 0.5; None where there is none."""
    return next((setting for setting in settings if setting.family == "interpolation" and setting.value == 0.5), None)


def difference(first: Setting, second: Setting, name: str, when: When) -> Difference | None:
    """`second` minus `first` seed by seed; None where they share no seed."""
    one, other = first.by_seed(name, when), second.by_seed(name, when)
    values = [other[seed] - one[seed] for seed in sorted(set(one) & set(other))]
    return Difference(first.arm, second.arm, estimate(values), sum(round(value, DECIMALS) > 0 for value in values)) if values else None


def spread(settings: Sequence[Setting], name: str, when: When) -> Spread | None:
    """The spread of the merges of the finished experts; None for fewer than two."""
    merges = [each for each in settings if each.is_merge and not each.on_the_way and each.figure(name, when)]
    if len(merges) < 2:
        return None
    means = [figure.mean for setting in merges if (figure := setting.figure(name, when))]
    pairs = [difference(one, other, name, when) for place, one in enumerate(merges) for other in merges[place + 1 :]]
    noise = [pair.value.stderr for pair in pairs if pair is not None and pair.value.stderr is not None]
    return Spread(when, len(merges), min(means), max(means), float(np.median(noise)) if noise else None)
