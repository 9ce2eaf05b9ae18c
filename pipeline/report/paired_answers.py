"""The scores of evaluated models sample by sample, read from their files for `paired.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foundation.errors import InputError
from pipeline.report.run_scores import RunScores, StageScores

ROUNDING = 1e-9  # of a mean over samples, taken in another order


@dataclass(frozen=True, eq=False)
class Answered:
    """One model's scores on one task's samples, the group that each belongs to, and the score of the task."""

    keys: tuple[str, ...]
    scores: np.ndarray
    groups: np.ndarray
    accuracy: float

    def is_mean_over(self, parts: Sequence[np.ndarray]) -> bool:
        """Whether the task's score is the mean of the means of these parts, given by their places."""
        return bool(abs(np.mean([self.scores[part].mean() for part in parts]) - self.accuracy) <= ROUNDING)

    def in_order_of(self, keys: tuple[str, ...]) -> np.ndarray:
        """The scores of the samples with these keys."""
        if keys is self.keys:
            return self.scores
        row = {key: index for index, key in enumerate(self.keys)}
        return self.scores[[row[key] for key in keys]]


Tasks = Mapping[str, Answered]


class Answers:
    """The answers of evaluated models. Each file is read once, and keys that models share are held once."""

    def __init__(self) -> None:
        self._read: dict[Path, Tasks] = {}
        self._keys: dict[tuple[str, ...], tuple[str, ...]] = {}

    def of(self, run: RunScores, entry: StageScores) -> Tasks:
        """Task -> scores, of the tasks that have samples; InputError where a task has a key twice."""
        assert entry.samples is not None
        if entry.samples not in self._read:
            self._read[entry.samples] = self._tasks(entry.samples, entry, run.tasks)
        return self._read[entry.samples]

    def _tasks(self, path: Path, entry: StageScores, names: Sequence[str]) -> Tasks:
        columns = _columns(path)
        found = {}
        for name in names:
            places = np.flatnonzero(columns["task"] == name)
            keys, scores, groups = (columns[column][places] for column in ("key", "score", "group"))
            if len(set(keys)) < len(keys):
                raise InputError(f"{path}: task {name!r} has a key twice, so its answers cannot be paired; run the experiment again")
            if len(places):
                found[name] = Answered(self._keys.setdefault(tuple(keys), tuple(keys)), scores, groups, entry.scores[name].accuracy)
        return found


def _columns(path: Path) -> dict[str, np.ndarray]:
    """What is needed of a `samples.parquet`: its task, key, score and group of every sample; older files have no groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=[name for name in ("task", "key", "score", "group") if name in pq.read_schema(path).names])
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} cannot be read as answers ({error}); remove its directory and run the experiment again") from error
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return {"group": np.full(len(table), "", dtype=object), **columns}


def same_questions(models: Sequence[Tasks]) -> bool:
    """Whether all models answered the same samples of the same tasks."""
    first = models[0]
    return all(
        tasks.keys() == first.keys()
        and all(own.keys is first[name].keys or set(own.keys) == set(first[name].keys) for name, own in tasks.items())
        for tasks in models
    )


def parts_of(models: Sequence[Answered]) -> list[np.ndarray]:
    """The parts of which every model's score is the mean: all samples, or those of each group; by their places in the first model.

    Empty where it is neither, as for a score that another harness takes over a whole corpus.
    """
    if all(model.is_mean_over([np.arange(len(model.scores))]) for model in models):
        return [np.arange(len(models[0].scores))]
    by_group = [[np.flatnonzero(model.groups == name) for name in sorted(set(model.groups))] for model in models]
    return by_group[0] if all(model.is_mean_over(parts) for model, parts in zip(models, by_group, strict=True)) else []
