"""What a run of stages learned and what it forgot: the measures of continual learning, from one matrix of scores.

Notation in the formulas: R[i, j] is the score on stream task j after stage i, R[0, j] that of the base model; stage j trains task j;
S stages are done. H[i, h] is the same for held-out task h. A matrix may stop after any stage (`matrix.until(stage)`): the measures then
speak of the tasks trained so far. All arithmetic is float64. A measure that is not defined (forgetting after one stage) is NaN.

J[i, j] are the scores of models that are trained jointly: the i-th from the base on tasks 1 to i together.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foundation.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """Scores of one line of models: `scores` is [S + 1, tasks], row 0 the base, row i the model after stage i.

    Columns: the held-out tasks, then the stream's tasks in the order they are trained. S may be less than the stream's length.
    Raises InputError for a wrong shape, a name that stands twice, an empty stream or a score that is not finite.
    """

    stream: tuple[str, ...]
    held_out: tuple[str, ...]
    scores: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", np.array(self.scores, dtype=np.float64))
        shape, columns = self.scores.shape, len(self.tasks)
        if not self.stream or len(set(self.tasks)) != columns:
            raise InputError(f"a score matrix needs at least one stream task and each task once, got {list(self.tasks)}")
        if len(shape) != 2 or shape[1] != columns or not 1 <= shape[0] <= len(self.stream) + 1:
            raise InputError(
                f"scores of shape {list(shape)} do not fit [1 to {len(self.stream) + 1} rows, {columns} tasks]; row 0 is the base"
            )
        if not np.isfinite(self.scores).all():
            row, column = (int(index) for index in np.argwhere(~np.isfinite(self.scores))[0])
            raise InputError(
                f"the score of {self.tasks[column]!r} after stage {row} is {self.scores[row, column]}; evaluate that model again"
            )
        self.scores.setflags(write=False)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The columns: held-out tasks, then the stream."""
        return self.held_out + self.stream

    @property
    def stages(self) -> int:
        """S, the number of stages done."""
        return self.scores.shape[0] - 1

    @property
    def on_held_out(self) -> Array:
        """H, [S + 1, held-out tasks]."""
        return self.scores[:, : len(self.held_out)]

    @property
    def on_stream(self) -> Array:
        """R, [S + 1, stream tasks]."""
        return self.scores[:, len(self.held_out) :]

    def until(self, stage: int) -> "ScoreMatrix":
        """The same run as it stood after `stage` (0 = the base alone)."""
        if not 0 <= stage <= self.stages:
            raise InputError(f"stage {stage} is not among the stages 0 to {self.stages} of this matrix")
        return ScoreMatrix(self.stream, self.held_out, self.scores[: stage + 1])


def average_accuracy(matrix: ScoreMatrix) -> float:
    """Mean score of the last model on the tasks trained so far: 1/S Σ_{j≤S} R[S, j].

    ACC of Lopez-Paz & Ranzato 2017 (Gradient Episodic Memory, arXiv 1706.08840, eq. 2).
    """
    return _mean(matrix.on_stream[-1, : matrix.stages])


def incremental_accuracy(matrix: ScoreMatrix) -> float:
    """Average accuracy, averaged over the stages: 1/S Σ_i 1/i Σ_{j≤i} R[i, j].

    Average incremental accuracy of Rebuffi et al. 2017 (iCaRL, arXiv 1611.07725, section 4).
    """
    return _mean(np.array([average_accuracy(matrix.until(stage)) for stage in range(1, matrix.stages + 1)]))


def learning_accuracy(matrix: ScoreMatrix) -> float:
    """Mean score on each task right after its own stage: 1/S Σ_j R[j, j].

    LA of Riemer et al. 2019 (Meta-Experience Replay, arXiv 1810.11910, section 5).
    """
    return _mean(_own(matrix))


def learning_gain(matrix: ScoreMatrix) -> float:
    """What each stage adds to its own task over the base model: 1/S Σ_j (R[j, j] − R[0, j]). Our definition; the base is pretrained."""
    return _mean(_own(matrix) - matrix.on_stream[0, : matrix.stages])


def final_gain(matrix: ScoreMatrix) -> float:
    """What is left of the learning in the last model: 1/S Σ_{j≤S} (R[S, j] − R[0, j]).

    Δlearning of "How to Teach Large Multimodal Models New Skills" (arXiv 2510.08564).
    """
    return _mean((matrix.on_stream[-1] - matrix.on_stream[0])[: matrix.stages])


def backward_transfer(matrix: ScoreMatrix) -> float:
    """Change on earlier tasks since their own stage: 1/(S−1) Σ_{j<S} (R[S, j] − R[j, j]); negative where later stages did harm.

    BWT of Lopez-Paz & Ranzato 2017 (arXiv 1706.08840, eq. 3). NaN before the second stage.
    """
    return _mean((matrix.on_stream[-1, : matrix.stages] - _own(matrix))[:-1])


def forgetting(matrix: ScoreMatrix) -> float:
    """Drop on earlier tasks from their best: 1/(S−1) Σ_{j<S} (max_{j≤l<S} R[l, j] − R[S, j]); negative where a task is now at its best.

    The forgetting measure of Chaudhry et al. 2018 (Riemannian Walk, arXiv 1801.10112), the variant with the maximum (not R[j, j]). The
    maximum runs from the task's own stage on: a score from before a task was trained does not count as something that could be forgotten.
    NaN before the second stage.
    """
    last = matrix.stages
    scores = matrix.on_stream
    return _mean(np.array([scores[task + 1 : last, task].max() - scores[last, task] for task in range(last - 1)]))


def held_out_forgetting(matrix: ScoreMatrix) -> float:
    """Drop of the held-out tasks from the base model: mean_h (H[0, h] − H[S, h]). NaN without held-out tasks."""
    return 0.0 - float(held_out_drift(matrix)[-1])


def held_out_drift(matrix: ScoreMatrix) -> Array:
    """Change of the held-out mean from the base model after every stage: drift[i] = mean_h (H[i, h] − H[0, h]); [S + 1], drift[0] = 0.

    The last entry is Δheld-out of "How to Teach Large Multimodal Models New Skills" (arXiv 2510.08564); negative = forgotten.
    """
    if not matrix.held_out:
        return np.full(matrix.stages + 1, np.nan)
    return (matrix.on_held_out - matrix.on_held_out[0]).mean(axis=1)


def forward_transfer(matrix: ScoreMatrix) -> float:
    """What earlier stages give to a task before it is trained: 1/(S−1) Σ_{2≤j≤S} (R[j−1, j] − R[0, j]).

    FWT of Lopez-Paz & Ranzato 2017 (arXiv 1706.08840, eq. 4), with the pretrained base in place of their randomly initialised model.
    NaN before the second stage.
    """
    scores = matrix.on_stream
    return _mean(np.array([scores[task, task] - scores[0, task] for task in range(1, matrix.stages)]))


def joint_bounds(joint: ScoreMatrix) -> dict[str, float]:
    """Task j -> a*_j = J[j, j], its score by the model that is trained on tasks 1 to j together: what `intransigence` measures from."""
    return dict(zip(joint.stream, _own(joint).tolist(), strict=False))


def intransigence(matrix: ScoreMatrix, joint: Mapping[str, float]) -> float:
    """How far each task stays behind joint training after its own stage: 1/S Σ_j (a*_j − R[j, j]); negative where it gets ahead.

    `joint`: task -> a*_j (`joint_bounds`). Chaudhry et al. 2018 (Riemannian Walk, arXiv 1801.10112) define I_k = a*_k − a_{k,k} for one
    task, a*_k by a model trained on the data of tasks 1 to k; we take the mean over the stages done. Raises InputError where `joint` lacks
    a task that is trained.
    """
    trained = matrix.stream[: matrix.stages]
    if missing := [task for task in trained if task not in joint]:
        raise InputError(f"the joint scores lack {', '.join(missing)}; train and evaluate the joint model on every task of the stream")
    return _mean(np.array([joint[task] for task in trained]) - _own(matrix))


def _own(matrix: ScoreMatrix) -> Array:
    """R[j, j] for every stage done, [S]."""
    return np.diagonal(matrix.on_stream[1:])[: matrix.stages]


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else float("nan")
