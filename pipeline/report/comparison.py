"""Several runs side by side: each arm's mean and standard error over its seeds, and paired differences between arms.

The standard error over seeds is s/√n, s with n − 1 degrees of freedom; one seed has none. The 95 % interval is that of Student's t. A
paired difference is taken seed by seed between arms that share tasks, training and base model, so that what a seed makes easy or hard for
both drops out. Runs that have come differently far are compared after the last stage that all of them have done.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from evaluators import continual
from evaluators.scores import task_score
from evaluators.statistics import student_t
from foundation.errors import InputError
from pipeline.report.run_scores import AFTER, BEFORE, RunScores, rows_of, score_matrix, stages_done, summary

COMPARED = {
    "acc/average": "average accuracy",
    "acc/held_out": "held-out accuracy",
    "acc/stream": "stream accuracy",
    "learning/own": "own task, after its stage",
    "before_merge/learning/own": "own task, before the merge",
    "learning/final_gain": "learning that remains",
    "forgetting/stream": "forgetting, stream",
    "forgetting/held_out": "forgetting, held-out",
    "intransigence": "intransigence, from joint",
}
"""Metric name -> the words for it in tables and plots, in their order. Values after the last stage that all runs have done."""

MANY = 4
"""From so many arms on, tables have a row for each arm, and differences are taken from the first arm only."""


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` seeds and its standard error; None where one seed gives none."""

    mean: float
    stderr: float | None
    count: int

    @property
    def half_width(self) -> float | None:
        """How far the 95 % interval reaches to either side of the mean, by Student's t with count − 1 degrees of freedom."""
        return None if self.stderr is None else student_t(self.count - 1) * self.stderr


@dataclass(frozen=True)
class Arm:
    """The runs of one arm, by seed, and its figures after `stage`: metric name -> Estimate."""

    name: str
    weights: str
    training: str
    runs: tuple[RunScores, ...]
    stage: int
    figures: dict[str, Estimate]


@dataclass(frozen=True)
class Difference:
    """`second` minus `first`, seed by seed, over the seeds in which both start from the same base model."""

    first: str
    second: str
    figures: dict[str, Estimate]


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and standard error over seeds."""
    score = task_score(values)
    return Estimate(score.accuracy, score.stderr if score.samples > 1 else None, score.samples)


def arms_of(runs: Sequence[RunScores]) -> list[Arm]:
    """The runs grouped by arm, in the order they first appear; figures after the last stage that all runs have done.

    Raises InputError for no runs, a seed that stands twice in an arm, and seeds of one arm that differ in tasks or training.
    """
    if not runs:
        raise InputError("no runs to report; evaluate at least the base model of one run")
    groups: dict[str, list[RunScores]] = {}
    for run in runs:
        groups.setdefault(run.arm, []).append(run)
    stage = min(stages_done(run) for run in runs)
    return [_arm(name, members, stage, runs) for name, members in groups.items()]


def figures_of(run: RunScores, stage: int, runs: Sequence[RunScores]) -> dict[str, float]:
    """`summary` after `stage`, and intransigence where `runs` hold a joint run with the same tasks, seed and base model.

    Of several such runs the first counts, one with the same training before others.
    """
    figures = summary(run, stage)
    bounds = [other for other in runs if other.joint and same_tasks(run, other) and _same_base(run, other)]
    if run.joint or not bounds or not stage:
        return figures
    bound = next((other for other in bounds if other.training == run.training), bounds[0])
    joint = continual.joint_bounds(score_matrix(bound, AFTER))
    for role, name in ((AFTER, "intransigence"), (BEFORE, "before_merge/intransigence")):
        if role in run.roles:
            figures[name] = continual.intransigence(score_matrix(run, role).until(stage), joint)
    return figures


def _arm(name: str, members: list[RunScores], stage: int, runs: Sequence[RunScores]) -> Arm:
    ordered = tuple(sorted(members, key=lambda run: run.seed))
    seeds = [run.seed for run in ordered]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"arm {name!r} holds seeds {seeds}; report each seed once")
    first = ordered[0]
    for run in ordered:
        if not same_setting(run, first):
            raise InputError(f"arm {name!r}: seeds {first.seed} and {run.seed} differ in more than the seed; give them different arm names")
    figures = [figures_of(run, stage, runs) for run in ordered]
    shared = [metric for metric in figures[0] if all(metric in other for other in figures)]
    weights = first.weights if len({run.weights for run in ordered}) == 1 else "weights differ by seed"
    estimates = {metric: estimate([each[metric] for each in figures]) for metric in shared}
    return Arm(name, weights, first.training, ordered, stage, estimates)


def paired_differences(arms: Sequence[Arm]) -> list[Difference]:
    """Every pair of arms with equal tasks, order and training: the later minus the earlier, over the seeds that start from equal bases."""
    found = [_difference(first, second) for first, second in compared_pairs(arms, same_setting)]
    return [pair for pair in found if pair.figures]


def compared_pairs(arms: Sequence[Arm], alike: Callable[[RunScores, RunScores], bool]) -> list[tuple[Arm, Arm]]:
    """Every pair of arms whose runs are `alike`, in their order; of many arms, each with the first that is like it."""
    if len(arms) < MANY:
        return [pair for pair in combinations(arms, 2) if alike(pair[0].runs[0], pair[1].runs[0])]
    firsts = [next(first for first in arms if first is other or alike(first.runs[0], other.runs[0])) for other in arms]
    return [(first, other) for first, other in zip(firsts, arms, strict=True) if first is not other]


def same_setting(one: RunScores, other: RunScores) -> bool:
    """Whether both learn and ask the same tasks in the same order, and train the same way."""
    return same_tasks(one, other) and one.training == other.training


def same_tasks(one: RunScores, other: RunScores) -> bool:
    """Whether both learn and ask the same tasks in the same order."""
    return (one.stream, one.held_out) == (other.stream, other.held_out)


def _same_base(one: RunScores, other: RunScores) -> bool:
    """Whether both runs start from a base model with the same scores on the same number of samples."""
    return one.seed == other.seed and rows_of(one, AFTER)[0].scores == rows_of(other, AFTER)[0].scores


def _difference(first: Arm, second: Arm) -> Difference:
    runs = [(one, other) for one in first.runs for other in second.runs if _same_base(one, other)]
    pairs = [(summary(one, first.stage), summary(other, second.stage)) for one, other in runs]
    shared = [metric for metric in COMPARED if pairs and all(metric in one and metric in other for one, other in pairs)]
    figures = {metric: estimate([other[metric] - one[metric] for one, other in pairs]) for metric in shared}
    return Difference(first.name, second.name, figures)


def seeds_difference(first: Arm, second: Arm, metric: str = "acc/average") -> Estimate | None:
    """`second` minus `first` within each seed in which both start from a base with the same scores, however they train; None for no seed.

    None too where they do not learn the same tasks in the same order.
    """
    if not same_tasks(first.runs[0], second.runs[0]):
        return None
    return _difference(first, second).figures.get(metric)


def percent(value: float, signed: bool = False) -> str:
    """A fraction in percent with one decimal: "67.2", or "+2.6" for a difference."""
    text = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    return "0.0" if text in ("-0.0", "+0.0") else text


def estimate_text(value: Estimate | None, signed: bool = False, interval: bool = False) -> str:
    """ "67.2 ± 1.3" in percent, with `interval` "67.2 ± 1.3 (5.6)"; the mean alone for one seed; "–" for a figure that is not defined."""
    if value is None or math.isnan(value.mean):
        return "–"
    mean = percent(value.mean, signed)
    if value.stderr is None or value.half_width is None:
        return mean
    return f"{mean} ± {percent(value.stderr)}" + (f" ({percent(value.half_width)})" if interval else "")


def after_stage(stage: int, stream: Sequence[str]) -> str:
    """ "after the last stage", or "after stage 2 of 5" while the stream goes on."""
    return "after the last stage" if stage == len(stream) else f"after stage {stage} of {len(stream)}"


def arm_label(arm: Arm | RunScores) -> str:
    """The arm's name with the merge spelled out: "wise_ft (0.5 x previous + 0.5 x tuned)"."""
    name = arm.name if isinstance(arm, Arm) else arm.arm
    return f"{name} ({arm.weights})" if arm.weights else f"{name} (no merge)"
