"""When a trial is given up early: asynchronous successive halving (ASHA, Li et al. 2020, arXiv 1810.05934, algorithm 2), as Tune has it.

After a quarter and after half of the samples a trial goes on if it is at least as good as the upper half of those that came as far before
it. So which trials are given up depends on the order in which they come; the scores of those that are not do not.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.search.records import Ended

REDUCTION = 2


@dataclass(frozen=True)
class Named:
    """What the scheduler asks of a trial: its id."""

    trial_id: str


def halving(past: Iterable[Ended]) -> Any:
    """Tune's ASHA scheduler over quarters of the samples, which knows the trials that have ended before."""
    from ray.tune.schedulers import ASHAScheduler

    from evaluators.live import PARTS

    scheduler = ASHAScheduler(
        time_attr="quarters", metric="value", mode="max", max_t=PARTS[-1], grace_period=PARTS[0], reduction_factor=REDUCTION
    )
    for ended in past:
        trial: Any = Named(f"past {ended.trial.number}")
        scheduler.on_trial_add(None, trial)
        for quarters, value in zip(PARTS, ended.course, strict=False):
            stops(scheduler, trial, quarters, value)
        scheduler.on_trial_remove(None, trial)
    return scheduler


def stops(scheduler: Any, trial: Any, quarters: int, value: float) -> bool:
    """Tell the scheduler of a trial's value after so many quarters; whether it is to be given up there."""
    from ray.tune.schedulers import TrialScheduler

    return bool(scheduler.on_trial_result(None, trial, {"quarters": quarters, "value": value}) == TrialScheduler.STOP)
