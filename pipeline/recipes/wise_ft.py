"""`wise_ft`: after every stage, average the fine-tuned model with the one before it, and go on from the average.

Sequential WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", eq. 1, applied between stages):

    merged_0 = base
    tuned_i  = fine-tune(merged_{i-1}, task_i)
    merged_i = alpha * merged_{i-1} + (1 - alpha) * tuned_i

`alpha` is the weight of the previous stage's model. (The paper's alpha is the fine-tuned model's weight.)
"""

from collections.abc import Iterator
from pathlib import Path

from mergers.methods.linear import WiseFT as WiseFTMerger
from pipeline.config.settings import Fraction, MergeWork, Stream
from pipeline.recipes.base import ask, starting_model
from pipeline.recipes.milestone import Milestone, Role
from pipeline.step import Step
from pipeline.steps import FineTune, Merge
from tasks.registry import get_task


class WiseFT(Stream):
    """The keys of a WiSE-FT experiment: those of `sequential`, `alpha`, and how merges are spread."""

    alpha: Fraction = 0.5
    merge: MergeWork = MergeWork()


def wise_ft(c: WiseFT, store: Path) -> Iterator[Milestone]:
    """The base is asked first; every stage is asked before and after its merge."""
    merged: Step = starting_model(c.base, c.seed, store)
    yield Milestone(ask(merged, c), 0, Role.BASE, seed=c.seed)
    weights = f"{c.alpha:g} x previous + {1 - c.alpha:g} x tuned"
    for stage, task in enumerate(c.tasks, start=1):
        tuned = FineTune(merged, get_task(task), c.train.spec(c.seed), resources=c.train.resources())
        yield Milestone(ask(tuned, c), stage, Role.BEFORE, task, seed=c.seed, weights=weights)
        merged = Merge(WiseFTMerger(c.alpha), {"previous": merged, "tuned": tuned}, actors=c.merge.actors)
        yield Milestone(ask(merged, c), stage, Role.AFTER, task, seed=c.seed, weights=weights)
