"""The scores of one run as plain data, and the figures that MLflow, tables and plots show for it.

A run evaluates the base model (stage 0), then in every stage the tuned model ("before" the merge) and the model that goes on ("after" it).
A run without merges has only "after". All figures are fractions (0 to 1), under names that are the same for every role, so that curves
lie on one chart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluators import continual
from evaluators.continual import ScoreMatrix
from evaluators.scores import TaskScore
from foundation.errors import InputError

BASE, BEFORE, AFTER = "base", "before", "after"

MEASURES = {
    "acc/seen": continual.average_accuracy,
    "acc/incremental": continual.incremental_accuracy,
    "learning/own": continual.learning_accuracy,
    "learning/gain": continual.learning_gain,
    "learning/final_gain": continual.final_gain,
    "forgetting/stream": continual.forgetting,
    "forgetting/held_out": continual.held_out_forgetting,
    "transfer/backward": continual.backward_transfer,
    "transfer/forward": continual.forward_transfer,
}
"""Metric name -> measure of continual learning, each taken over the tasks trained so far."""


@dataclass(frozen=True)
class StageScores:
    """One evaluated model: stage 0 is the base; `task` is what the stage trained (None for the base); `role` is base, before or after.

    `scores` may hold parts of a task's score beside it, as "pathvqa/f1". `samples`: the file of its answers, None where it is not known.
    """

    stage: int
    task: str | None
    role: str
    scores: Mapping[str, TaskScore]
    samples: Path | None = None


@dataclass(frozen=True)
class Cost:
    """What fine-tuning took: the most weights that a stage trained, and the seconds of all stages that lead to the model."""

    trained: int
    seconds: float


@dataclass(frozen=True)
class RunScores:
    """All evaluated models of one run. `weights` spells the merge out ("0.5 x previous + 0.5 x tuned"), "" where nothing is merged.

    `training` names what the stages train and how ("mlp, lr 6e-4"): arms are compared pairwise only where it is equal. `cost` is what the
    last model's fine-tuning took, stage upon stage; None where no stage is done. `strategy` says how a stage takes up its task, "" for
    plain fine-tuning. `joint` says that every stage learns its task and all before it together: what the other runs are held against.
    """

    arm: str
    seed: int
    stream: tuple[str, ...]
    held_out: tuple[str, ...]
    weights: str
    stages: tuple[StageScores, ...]
    training: str = ""
    cost: "Cost | None" = None
    strategy: str = ""
    joint: bool = False

    @property
    def tasks(self) -> tuple[str, ...]:
        """Held-out tasks, then the stream: the order of every table."""
        return self.held_out + self.stream

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles this run has beside the base: before and after, or after alone."""
        present = {stage.role for stage in self.stages}
        return tuple(role for role in (BEFORE, AFTER) if role in present)

    @property
    def merges(self) -> bool:
        """Whether a tuned model was evaluated before its merge."""
        return BEFORE in self.roles


def rows_of(run: RunScores, role: str) -> list[StageScores]:
    """The base and then the models of `role`, by stage. InputError for a missing or doubled stage, or one that lacks a task's score."""
    rows = sorted((entry for entry in run.stages if entry.role in (BASE, role)), key=lambda entry: entry.stage)
    where = f"run {run.arm!r}, seed {run.seed}, role {role!r}"
    if [entry.stage for entry in rows] != list(range(len(rows))) or not rows or rows[0].role != BASE:
        found = [entry.stage for entry in rows]
        raise InputError(
            f"{where}: stages {found} are evaluated; a report needs the base as stage 0 and then each stage once, without gaps"
        )
    for entry in rows:
        trained = None if entry.stage == 0 else run.stream[entry.stage - 1] if entry.stage <= len(run.stream) else None
        if entry.task != trained:
            raise InputError(f"{where}: stage {entry.stage} trained {entry.task!r}, but the stream is {list(run.stream)}")
        missing = [task for task in run.tasks if task not in entry.scores]
        if missing:
            raise InputError(
                f"{where}: stage {entry.stage} lacks the scores of {', '.join(missing)}; evaluate every model on the whole suite"
            )
    return rows


def score_matrix(run: RunScores, role: str) -> ScoreMatrix:
    """Scores of the base and of the models of `role` ("before" or "after"), [stages + 1, tasks]."""
    scores = [[entry.scores[task].accuracy for task in run.tasks] for entry in rows_of(run, role)]
    return ScoreMatrix(run.stream, run.held_out, np.array(scores))


def stderr_matrix(run: RunScores, role: str) -> np.ndarray:
    """Standard errors that belong to `score_matrix(run, role)`, over samples."""
    return np.array([[entry.scores[task].stderr for task in run.tasks] for entry in rows_of(run, role)])


def mean_with_stderr(entry: StageScores, tasks: tuple[str, ...]) -> tuple[float, float]:
    """The mean score over `tasks` and its standard error over samples, √(Σ se²) / n: the tasks' samples are drawn independently."""
    scores = [entry.scores[task] for task in tasks]
    return float(np.mean([score.accuracy for score in scores])), float(np.sqrt(np.sum([score.stderr**2 for score in scores])) / len(scores))


def stage_metrics(run: RunScores, role: str, stage: int) -> dict[str, float]:
    """Metric name -> value of the model of `role` after `stage` (0: the base). Measures that are not defined yet are left out.

    acc/<task>; acc/average, acc/held_out, acc/stream (means over all tasks of that group), each with acc_stderr/...; and MEASURES over the
    tasks trained so far; drift/held_out.
    """
    entry = rows_of(run, role)[stage]
    matrix = score_matrix(run, role).until(stage)
    metrics = {f"acc/{task}": entry.scores[task].accuracy for task in run.tasks}
    for group, tasks in {"average": run.tasks, "held_out": run.held_out, "stream": run.stream}.items():
        if tasks:
            metrics[f"acc/{group}"], metrics[f"acc_stderr/{group}"] = mean_with_stderr(entry, tasks)
    metrics |= {name: measure(matrix) for name, measure in MEASURES.items()}
    metrics["drift/held_out"] = float(continual.held_out_drift(matrix)[-1])
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def stages_done(run: RunScores) -> int:
    """How many stages are evaluated to their end, after the merge."""
    return len(rows_of(run, AFTER)) - 1


def summary(run: RunScores, stage: int | None = None) -> dict[str, float]:
    """The run in figures after `stage` (None: the last one done).

    `stage_metrics` of the model that goes on; where the run merges, those of the tuned models stand beside them under `before_merge/...`.
    """
    reached = stages_done(run) if stage is None else stage
    figures = stage_metrics(run, AFTER, reached)
    if run.merges:
        figures |= {f"before_merge/{name}": value for name, value in stage_metrics(run, BEFORE, reached).items()}
    return figures
