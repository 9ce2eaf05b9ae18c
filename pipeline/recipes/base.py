"""What recipes share: the model a stream starts from, one stage of learning, and the evaluation of a model."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from evaluators.suite import Suite
from pipeline.config.base_settings import Base
from pipeline.config.settings import Stream
from pipeline.recipes.milestone import Milestone, Role
from pipeline.step import Step
from pipeline.steps import DIGESTS_FILE, Evaluate, FineTune, Fisher, Pretrain, Within, pretrained
from tasks.task import Split

FILES = "files"
"""Below the store: what is known of the users' data files."""


def starting_model(base: Base, seed: int, store: Path) -> Step:
    """The checkpoint the user named, or the digits model made from `seed`."""
    if base.checkpoint is not None:
        return pretrained(base.checkpoint, store / DIGESTS_FILE)
    return Pretrain(base.settings.recipe(), seed, base.settings.threads)


def learn(c: Stream, models: Sequence[Step], store: Path) -> FineTune:
    """The next stage of the stream: the newest of `models` (the base, then what each stage ended with) takes up the next task.

    A strategy that rehearses is given the tasks before it; one that reads Fisher information, that of every earlier stage's model on its
    own task.
    """
    stage, strategy, spec = len(models), c.strategy.make(), c.train.spec(c.seed)
    done = [c.task(name, Split.TRAIN, store / FILES) for name in c.tasks[: stage - 1]]
    fishers: tuple[Step, ...] = ()
    if strategy.reads_fisher:
        samples = getattr(strategy, "samples")  # noqa: B009 (only such strategies have it)
        learned = zip(models[1:], done, strict=True)
        gpus = min(c.train.gpus, 1)
        fishers = tuple(Fisher(model, task, spec.parts, samples, c.seed, spec.threads, gpus=gpus) for model, task in learned)
    return FineTune(
        models[-1],
        c.task(c.tasks[stage - 1], Split.TRAIN, store / FILES),
        spec,
        strategy,
        tuple(done) if strategy.rehearses else (),
        fishers,
        resources=c.train.resources(),
    )


def ask(model: Step, c: Stream, suite: Suite) -> Evaluate:
    """`model` asked every task of the `suite`, which a recipe makes once: tasks in files are read for it."""
    return Evaluate(model, suite, c.evaluate.batch_size, c.evaluate.threads, gpus=c.evaluate.gpus, workers=c.evaluate.workers)


def validation_suite(c: Stream, learned: Sequence[str], samples: int, store: Path) -> Suite:
    """What a choice may be made by: validation questions of the tasks learned so far and of the held-out ones."""
    stream, held_out = (tuple(c.task(name, Split.VALIDATION, store / FILES) for name in names) for names in (learned, c.held_out))
    return Suite(stream, held_out, Split.VALIDATION, samples)


def within(tuned: FineTune, c: Stream, stage: int, suite: Suite) -> Iterator[Milestone]:
    """The models in the middle of a stage, where the experiment names optimizer steps."""
    for step in tuned.train.milestones:
        yield Milestone(ask(Within(tuned, step), c, suite), stage, Role.WITHIN, c.tasks[stage - 1], seed=c.seed, step=step)
