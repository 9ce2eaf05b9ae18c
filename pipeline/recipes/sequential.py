"""`sequential`: fine-tune on one task after another, no merging. The baseline that shows what is forgotten.

With `search` the whole stream is trained once for each of several learning rates, and the rate is kept whose last model answers most
validation questions: the baseline at its best, chosen as honestly as a searched alpha.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import model_validator

from pipeline.config.search_settings import RateSearch
from pipeline.config.settings import Stream
from pipeline.recipes.base import FILES, ask, learn, starting_model, validation_suite, within
from pipeline.recipes.milestone import Milestone, Role
from pipeline.steps import Chosen


class Sequential(Stream):
    """The keys of a sequential experiment."""

    search: RateSearch | None = None

    @model_validator(mode="after")
    def _one_rate(self) -> "Sequential":
        if self.search is not None and (self.train.learning_rate is not None or self.train.milestones):
            key = "learning_rate" if self.train.learning_rate is not None else "milestones"
            raise ValueError(f"search tries the learning rates that it lists, so train.{key} has no place beside it; leave it out")
        return self


def sequential(c: Sequential, store: Path) -> Iterator[Milestone]:
    """Each stage goes on from the fine-tuned model of the one before it."""
    if c.search is not None:
        yield from at_the_best_rate(c, c.search, store)
        return
    models = [starting_model(c.base, c.seed, store)]
    suite = c.suite(store / FILES)
    yield Milestone(ask(models[0], c, suite), 0, Role.BASE, seed=c.seed)
    for stage, task in enumerate(c.tasks, start=1):
        tuned = learn(c, models, store)
        yield from within(tuned, c, stage, suite)
        models.append(tuned)
        yield Milestone(ask(tuned, c, suite), stage, Role.AFTER, task, seed=c.seed)


def at_the_best_rate(c: Sequential, search: RateSearch, store: Path) -> Iterator[Milestone]:
    """Every stage's model of the rate that ends best on validation."""
    base, suite = starting_model(c.base, c.seed, store), c.suite(store / FILES)
    lines, judged = [], []
    for rate in search.rates:
        own = c.model_copy(update={"train": c.train.model_copy(update={"learning_rate": rate}), "search": None})
        models = [base]
        for _ in c.tasks:
            models.append(learn(own, models, store))
        lines.append(models)
        judged.append(ask(models[-1], c, validation_suite(c, c.tasks, search.samples, store)))
    yield Milestone(ask(base, c, suite), 0, Role.BASE, seed=c.seed)
    for stage, task in enumerate(c.tasks, start=1):
        model = Chosen(tuple(models[stage] for models in lines), tuple(judged), tuple(f"{rate:g}" for rate in search.rates))
        yield Milestone(ask(model, c, suite), stage, Role.AFTER, task, seed=c.seed)
