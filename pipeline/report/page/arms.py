"""What the page says of each arm: figures as means over seeds with their 95 % intervals, in words, and over the stages."""

import math
from collections.abc import Sequence

from pipeline.report.comparison import Arm, Estimate, estimate, percent
from pipeline.report.run_scores import AFTER, rows_of, stage_metrics

NOTHING = "–"
NORMAL = 1.96
"""Standard errors to either side of a mean over many samples that hold it in 95 % of cases."""


def over_seeds(values: Sequence[float | None]) -> Estimate | None:
    """A figure's mean over the seeds; None where a seed has none."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return estimate(known) if len(known) == len(values) else None


def after_stages(arm: Arm, metric: str, role: str = AFTER) -> list[Estimate | None]:
    """A metric of the models of `role` after each stage, the base first; as many stages as all seeds have."""
    stages = min(len(rows_of(run, role)) for run in arm.runs)
    return [over_seeds([stage_metrics(run, role, stage).get(metric) for run in arm.runs]) for stage in range(stages)]


def seeds_after(arm: Arm, metric: str, role: str = AFTER) -> list[float]:
    """A metric of every seed's models of `role`, after every stage."""
    every = [stage_metrics(run, role, stage).get(metric) for run in arm.runs for stage in range(len(rows_of(run, role)))]
    return [value for value in every if value is not None]


def ends_of(value: Estimate) -> tuple[float, float] | None:
    """The ends of the 95 % interval; None for one seed, which has none."""
    return None if value.half_width is None else (value.mean - value.half_width, value.mean + value.half_width)


def interval_words(value: Estimate | None, signed: bool = False) -> str:
    """ "79.9 ± 2.8" in percent, ± half of the 95 % interval; without it for one seed; a dash for nothing."""
    if value is None or math.isnan(value.mean):
        return NOTHING
    mean = points(value.mean, signed)
    return mean if value.half_width is None else f"{mean} ± {percent(value.half_width)}"


def figure_words(arm: Arm, metric: str) -> str:
    """A figure of `arm` with ± half of its interval over seeds; of one seed's accuracies ± NORMAL standard errors over the samples."""
    stderr = arm.figures.get(metric.replace("acc/", "acc_stderr/"))
    if len(arm.runs) > 1 or metric not in arm.figures or not metric.startswith("acc/") or stderr is None:
        return interval_words(arm.figures.get(metric))
    return f"{points(arm.figures[metric].mean)} ± {percent(NORMAL * stderr.mean)}"


def difference_words(value: Estimate) -> str:
    """ "+8.7 [6.1, 11.2]" in points; without the interval for one seed."""
    ends = ends_of(value)
    return points(value.mean, True) + ("" if ends is None else f" [{points(ends[0])}, {points(ends[1])}]")


def points(value: float, signed: bool = False) -> str:
    """A fraction in percent with one decimal and a true minus."""
    return percent(value, signed).replace("-", "−")


def same_stream(arms: Sequence[Arm]) -> bool:
    """Whether all arms learn the same tasks in the same order and are asked the same ones."""
    return len({(arm.runs[0].stream, arm.runs[0].held_out) for arm in arms}) == 1


def shown_first(arms: Sequence[Arm]) -> int:
    """The place of the arm whose tables stand open: the first that merges, else the first."""
    return next((place for place, arm in enumerate(arms) if arm.runs[0].merges), 0)
