"""`joint`: learn all tasks at once, from the base: what a stream of stages could reach if nothing were forgotten.

The model of stage i has learned tasks 1 to i together, with as many steps as i stages take, so every row of a stream has its bound.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import model_validator

from pipeline.config.settings import Stream
from pipeline.recipes.base import FILES, ask, starting_model, within
from pipeline.recipes.milestone import Milestone, Role
from pipeline.steps import FineTune
from tasks.mixture import MixedTask
from tasks.task import Split


class Joint(Stream):
    """The keys of a joint experiment."""

    @model_validator(mode="after")
    def _nothing_is_earlier(self) -> "Joint":
        strategy = self.strategy.make()
        if strategy.rehearses or strategy.reads_fisher:
            raise ValueError(f"strategy {self.strategy.name} needs earlier stages, and joint training has none; take another, or none")
        return self


def joint(c: Joint, store: Path) -> Iterator[Milestone]:
    """Every stage starts from the base."""
    base = starting_model(c.base, c.seed, store)
    suite = c.suite(store / FILES)
    yield Milestone(ask(base, c, suite), 0, Role.BASE, seed=c.seed)
    spec, strategy = c.train.spec(c.seed), c.strategy.make()
    for stage, task in enumerate(c.tasks, start=1):
        together = MixedTask(tuple(c.task(name, Split.TRAIN, store / FILES) for name in c.tasks[:stage]))
        longer = spec if spec.max_steps is None else replace(spec, max_steps=spec.max_steps * stage)
        tuned = FineTune(base, together, longer, strategy, resources=c.train.resources())
        yield from within(tuned, c, stage, suite)
        yield Milestone(ask(tuned, c, suite), stage, Role.AFTER, task, seed=c.seed)
