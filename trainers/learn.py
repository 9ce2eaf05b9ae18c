"""One stage of learning of either kind: a vision-language or language model's, or a modality-expert transformer's."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.modality.spec import ModalityLearning
from trainers.strategy import Learning

if TYPE_CHECKING:
    from trainers.callbacks import Log
    from trainers.stage import StageResult


def learn(
    learning: Learning | ModalityLearning,
    start: Path,
    output: Path,
    work: Path,
    on_log: "Log | None" = None,
    on_saved: Callable[[Path], None] | None = None,
) -> "StageResult":
    """Learn, on every worker alike, from `start` to `output`: see `trainers/train.py` and `trainers/modality/stage.py`.

    `on_saved` is called on the first worker with every checkpoint of the stage in `work`, and every milestone, once it is whole.
    """
    from trainers.checkpoints.resume import telling

    with telling(on_saved):
        if isinstance(learning, ModalityLearning):
            from trainers.modality.stage import train_modality_stage

            return train_modality_stage(start, learning, output, work, on_log)
        from trainers.train import train_stage

        one = learning
        return train_stage(start, one.task, one.spec, output, work, on_log, one.strategy, one.fishers, one.earlier)
