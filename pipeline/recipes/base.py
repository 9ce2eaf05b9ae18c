"""What recipes share: the model a stream starts from, and the evaluation of a model."""

from pathlib import Path

from pipeline.config.settings import Base, Stream
from pipeline.step import Step
from pipeline.steps import DIGESTS_FILE, Evaluate, Pretrain, pretrained


def starting_model(base: Base, seed: int, store: Path) -> Step:
    """The checkpoint the user named, or the digits model made from `seed`."""
    if base.checkpoint is not None:
        return pretrained(base.checkpoint, store / DIGESTS_FILE)
    return Pretrain(base.settings.recipe(), seed, base.settings.threads)


def ask(model: Step, c: Stream) -> Evaluate:
    """`model` asked every task of the stream and of the held-out set."""
    return Evaluate(model, c.suite(), c.evaluate.batch_size, c.evaluate.threads, gpus=c.evaluate.gpus)
