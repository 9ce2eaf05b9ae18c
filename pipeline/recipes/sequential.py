"""`sequential`: fine-tune on one task after another, no merging. The baseline that shows what is forgotten."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.config.settings import Stream
from pipeline.recipes.base import ask, starting_model
from pipeline.recipes.milestone import Milestone, Role
from pipeline.steps import FineTune
from tasks.registry import get_task


class Sequential(Stream):
    """The keys of a sequential experiment."""


def sequential(c: Sequential, store: Path) -> Iterator[Milestone]:
    """Each stage goes on from the fine-tuned model of the one before it."""
    model = starting_model(c.base, c.seed, store)
    yield Milestone(ask(model, c), 0, Role.BASE, seed=c.seed)
    for stage, task in enumerate(c.tasks, start=1):
        model = FineTune(model, get_task(task), c.train.spec(c.seed), resources=c.train.resources())
        yield Milestone(ask(model, c), stage, Role.AFTER, task, seed=c.seed)
