"""The searches of a run as plain data, from its rows and the store: what reports and MLflow show of them."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from evaluators.scores import TaskScore
from foundation.errors import InputError
from pipeline.report.search_figures import Searched
from pipeline.results import Row, task_scores
from pipeline.search.spec import Trial
from pipeline.steps.searching import TRIALS_FILE
from pipeline.store import Record, Store


def searches(found: Sequence[Row], store: Store) -> list[Searched]:
    """Every stored search that chose the model of a row, with the test scores of what it picked where they are stored."""
    return list(_searches(found, store))


def _searches(found: Sequence[Row], store: Store) -> Iterator[Searched]:
    for row in found:
        record = store.by_key(row.search) if row.search else None
        if record is not None:
            asked = store.by_key(row.evaluation)
            yield searched(record, row.arm, row.seed, row.stage, row.task or "", {} if asked is None else task_scores(asked))


def searched(record: Record, arm: str, seed: int, stage: int, task: str, test: dict[str, TaskScore]) -> Searched:
    """One search as its record and its file of trials tell it; InputError where the file is not there."""
    path, details = record.directory / TRIALS_FILE, record.content["details"]
    try:
        content = json.loads(path.read_text())
        trials = tuple(trial_of(each) for each in content["trials"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a search ({error}); remove {path.parent} from the store and run again") from error
    return Searched(
        arm,
        seed,
        stage,
        task,
        trials,
        content["pick"],
        goal=details["goal"],
        new=details["new"],
        stream=tuple(details["stream"]),
        held_out=tuple(details["held_out"]),
        samples=details["samples"],
        split=details["split"],
        weight=details["weight"],
        method=details["method"],
        test=test,
    )


def trial_of(entry: dict[str, Any]) -> Trial:
    """A trial as it was written."""
    scores = {task: TaskScore(**score) for task, score in entry["scores"].items()}
    return Trial(**{**entry, "scores": scores})
