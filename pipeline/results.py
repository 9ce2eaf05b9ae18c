"""From records to results: the scores of every arm and seed, read from the store."""

from collections.abc import Sequence
from itertools import groupby

from evaluators.scores import TaskScore
from pipeline.recipes.milestone import Milestone, Role
from pipeline.report.run_scores import RunScores, StageScores
from pipeline.steps import FineTune
from pipeline.store import Record, Store


def task_scores(record: Record) -> dict[str, TaskScore]:
    """The scores in an evaluation's record."""
    return {task: TaskScore(**score) for task, score in record.metrics.items()}


def streams(milestones: Sequence[Milestone]) -> list[list[Milestone]]:
    """The milestones of each arm and seed, in order."""
    return [list(group) for _, group in groupby(milestones, key=lambda milestone: (milestone.arm, milestone.seed))]


def run_scores(milestones: Sequence[Milestone], store: Store, name: str = "") -> RunScores:
    """The scores of one arm and seed, as far as they are stored: a stage is in only if all before it are. An arm without a name is called `name`."""
    suite = milestones[0].evaluation.suite
    stages = []
    for milestone in milestones:
        record = store.record(milestone.evaluation)
        if record is None:
            break
        stages.append(StageScores(milestone.stage, milestone.task, milestone.role.value, task_scores(record)))
    return RunScores(
        arm=milestones[0].arm or name,
        seed=milestones[0].seed,
        stream=tuple(task.name for task in suite.stream),
        held_out=tuple(task.name for task in suite.held_out),
        weights=next((milestone.weights for milestone in milestones if milestone.weights), ""),
        stages=tuple(stages),
        training=_training(milestones),
    )


def _training(milestones: Sequence[Milestone]) -> str:
    for milestone in milestones:
        if milestone.role is not Role.BASE and isinstance(milestone.model, FineTune):
            train = milestone.model.train
            return f"{' + '.join(train.parts)}, learning rate {train.learning_rate:g}"
    return ""
