"""What an evaluation leaves behind: one row per sample in `samples.parquet`, one entry per task in `scores.json`.

Both files are the same bytes whenever the answers are the same. `TaskScore` is all that reports need, so this module is light.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from foundation.errors import InputError
from foundation.files import write_atomic, write_json_atomic

SAMPLES_FILE = "samples.parquet"
SCORES_FILE = "scores.json"


@dataclass(frozen=True)
class TaskScore:
    """One model on one task: the mean score (0 to 1), the standard error of that mean over the samples, how many samples."""

    accuracy: float
    stderr: float
    samples: int


@dataclass(frozen=True)
class Sample:
    """One question as it was put, answered and scored: a row of `samples.parquet`.

    `prompt`: all the text that the model was given, by its chat template. `group`: the category it is reported under. `measures`: further
    figures of the answer, as {"f1": 0.5}.
    """

    task: str
    key: str
    question: str
    answer: str
    response: str
    score: float
    prompt: str = ""
    group: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)


def task_score(scores: Sequence[float]) -> TaskScore:
    """The mean of `scores` and its standard error s/√n, s with n − 1 degrees of freedom (0 for one sample). InputError for no sample."""
    count = len(scores)
    if not count:
        raise InputError("no samples to take a mean of; ask at least one sample per task")
    mean = math.fsum(scores) / count
    squares = math.fsum((score - mean) ** 2 for score in scores)
    return TaskScore(mean, math.sqrt(squares / (count - 1) / count) if count > 1 else 0.0, count)


def write_samples(samples: Sequence[Sample], path: Path) -> None:
    """Write `samples` in the order given as a Parquet file, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array([getattr(sample, name) for sample in samples], pa.string()) for name in ("task", "key", "question", "answer")}
    columns["response"] = pa.array([sample.response for sample in samples], pa.string())
    columns["score"] = pa.array([sample.score for sample in samples], pa.float64())
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())


def read_samples(path: Path) -> list[Sample]:
    """The rows of a `samples.parquet`, in its order."""
    import pyarrow.parquet as pq

    return [Sample(**row) for row in pq.read_table(path).to_pylist()]


def write_scores(scores: Mapping[str, TaskScore], path: Path) -> None:
    """Write task name -> accuracy, stderr, samples as JSON, atomically."""
    write_json_atomic(path, {task: asdict(score) for task, score in scores.items()})


def read_scores(path: Path) -> dict[str, TaskScore]:
    """The scores in a `scores.json`; InputError where the file is missing or is not one."""
    try:
        return {task: TaskScore(**entry) for task, entry in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; evaluate the checkpoint first") from None
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is not a file of scores ({error}); remove it and evaluate again") from error
