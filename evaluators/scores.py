"""What an evaluation leaves behind: one row per sample in `samples.parquet`, one entry per task in `scores.json`.

Both files are the same bytes whenever the answers are the same. `TaskScore` is all that reports need, so this module is light.
"""

import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
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


def scores_of(name: str, samples: Sequence[Sample], macro: bool = False) -> dict[str, TaskScore]:
    """All scores of the task `name`: its own first, then NAME/measure for each further measure and NAME/group for each group, sorted.

    A measure's mean is over the samples that have it. With `macro` the task's score is the mean of its G groups' means, and its standard
    error sqrt(Σ se_g²) / G, the groups being independent. Raises InputError where there is no sample, a measure and a group share a name,
    or a macro score finds a sample without a group.
    """
    groups = gathered((sample.group, sample.score) for sample in samples if sample.group)
    measures = gathered(item for sample in samples for item in sample.measures.items())
    if shared := sorted(groups.keys() & measures.keys()):
        raise InputError(f"task {name!r} has a measure and a group called {shared[0]!r}; rename one of them in the task")
    parts = {f"{name}/{part}": task_score(values) for found in (measures, groups) for part, values in sorted(found.items())}
    if not macro:
        return {name: task_score([sample.score for sample in samples]), **parts}
    if lost := next((sample.key for sample in samples if not sample.group), None):
        raise InputError(f"task {name!r} is scored by groups, but its sample {lost} is in none; give every example a group")
    return {name: macro_score([parts[f"{name}/{group}"] for group in sorted(groups)]), **parts}


def whole_tasks(names: Iterable[str]) -> list[str]:
    """The names of tasks among the names of scores, in their order: not those of a task's measures and groups ("coco/TR@1")."""
    held = list(names)
    known = set(held)
    return [name for name in held if not any(name[:place] in known for place, letter in enumerate(name) if letter == "/")]


def mean_accuracy(scores: Mapping[str, TaskScore]) -> float:
    """The mean over the tasks, whose measures and groups do not count beside them."""
    whole = whole_tasks(scores)
    return sum(scores[name].accuracy for name in whole) / len(whole)


def macro_score(groups: Sequence[TaskScore]) -> TaskScore:
    """The mean of the groups' means; its standard error is sqrt(Σ se_g²) / G. InputError for no group."""
    if not groups:
        raise InputError("no groups to take a mean of; ask at least one sample per task")
    mean = math.fsum(group.accuracy for group in groups) / len(groups)
    stderr = math.sqrt(math.fsum(group.stderr**2 for group in groups)) / len(groups)
    return TaskScore(mean, stderr, sum(group.samples for group in groups))


def gathered(items: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    """The values of each name, in their order."""
    found: dict[str, list[float]] = {}
    for name, value in items:
        found.setdefault(name, []).append(value)
    return found


def write_samples(samples: Sequence[Sample], path: Path) -> None:
    """Write `samples` in the order given as a Parquet file, atomically."""
    write_atomic(path, samples_file(samples))


def samples_file(samples: Sequence[Sample], about: Mapping[str, str] | None = None) -> bytes:
    """`samples` in the order given as the bytes of a Parquet file. `about`: what else the file says of itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"score": pa.float64(), "measures": pa.map_(pa.string(), pa.float64())}
    values = {each.name: [getattr(sample, each.name) for sample in samples] for each in fields(Sample)}
    values["measures"] = [sorted(measures.items()) for measures in values["measures"]]
    table = pa.table({name: pa.array(column, kinds.get(name, pa.string())) for name, column in values.items()})
    buffer = io.BytesIO()
    table = table.replace_schema_metadata(dict(about)) if about else table
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def read_samples(path: Path, about: Mapping[str, str] | None = None) -> list[Sample]:
    """The rows of a `samples.parquet`, in its order; also of one that an earlier version wrote, without prompts, groups and measures.

    InputError for a file that cannot be read, or that does not say `about` itself what is given.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; evaluate the checkpoint first") from None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a file of samples ({error}); remove it and evaluate again") from error
    said = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if about and any(said.get(key) != value for key, value in about.items()):
        raise InputError(f"{path} is of another evaluation; remove it and evaluate again")
    return [Sample(**row | {"measures": dict(row.get("measures", ()))}) for row in table.to_pylist()]


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
