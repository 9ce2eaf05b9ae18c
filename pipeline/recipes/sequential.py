"""`sequential`: fine-tune on one task after another, no merging. The baseline that shows what is forgotten."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.config.settings import Stream
from pipeline.recipes.base import FILES, ask, learn, starting_model, within
from pipeline.recipes.milestone import Milestone, Role


class Sequential(Stream):
    """The keys of a sequential experiment."""


def sequential(c: Sequential, store: Path) -> Iterator[Milestone]:
    """Each stage goes on from the fine-tuned model of the one before it."""
    models = [starting_model(c.base, c.seed, store)]
    suite = c.suite(store / FILES)
    yield Milestone(ask(models[0], c, suite), 0, Role.BASE, seed=c.seed)
    for stage, task in enumerate(c.tasks, start=1):
        tuned = learn(c, models, store)
        yield from within(tuned, c, stage, suite)
        models.append(tuned)
        yield Milestone(ask(tuned, c, suite), stage, Role.AFTER, task, seed=c.seed)
