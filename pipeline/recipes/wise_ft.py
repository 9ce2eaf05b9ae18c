"""`wise_ft`: after every stage, average the fine-tuned model with the one before it, and go on from the average.

Sequential WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", eq. 1, applied between stages):

    merged_0 = base
    tuned_i  = fine-tune(merged_{i-1}, task_i)
    merged_i = alpha * merged_{i-1} + (1 - alpha) * tuned_i

`alpha` is the weight of the previous stage's model. (The paper's alpha is the fine-tuned model's weight.)
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import model_validator

from mergers.methods.linear import WiseFT as WiseFTMerger
from pipeline.config.kinds import Fraction
from pipeline.config.settings import MergeWork, Stream
from pipeline.recipes.base import FILES, ask, learn, starting_model, within
from pipeline.recipes.milestone import Milestone, Role
from pipeline.steps import Merge


class WiseFT(Stream):
    """The keys of a WiSE-FT experiment: those of `sequential`, `alpha`, and how merges are spread."""

    alpha: Fraction = 0.5
    merge: MergeWork = MergeWork()

    @model_validator(mode="after")
    def _mergeable(self) -> "WiseFT":
        if self.strategy.name == "routing":
            raise ValueError(
                "strategy routing keeps what it learns beside the model, where a merge would lose it; "
                "use recipe: sequential with it, or another strategy here"
            )
        return self


def wise_ft(c: WiseFT, store: Path) -> Iterator[Milestone]:
    """The base is asked first; every stage is asked before and after its merge."""
    models = [starting_model(c.base, c.seed, store)]
    suite = c.suite(store / FILES)
    yield Milestone(ask(models[0], c, suite), 0, Role.BASE, seed=c.seed)
    weights = f"{c.alpha:g} x previous + {1 - c.alpha:g} x tuned"
    for stage, task in enumerate(c.tasks, start=1):
        tuned = learn(c, models, store)
        yield from within(tuned, c, stage, suite)
        yield Milestone(ask(tuned, c, suite), stage, Role.BEFORE, task, seed=c.seed, weights=weights)
        models.append(Merge(WiseFTMerger(c.alpha), {"previous": models[-1], "tuned": tuned}, actors=c.merge.actors))
        yield Milestone(ask(models[-1], c, suite), stage, Role.AFTER, task, seed=c.seed, weights=weights)
