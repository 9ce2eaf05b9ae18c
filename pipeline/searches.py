"""The searches of a run as plain data, from its rows and the store: what reports and MLflow show of them."""

from collections.abc import Iterator, Sequence

from evaluators.scores import TaskScore
from pipeline.report.search_figures import Searched
from pipeline.results import Row, task_scores
from pipeline.search.answers import ANSWERS_FILE, read_answers
from pipeline.search.records import read_found
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
    """One search as its record and its files tell it; InputError where that of the trials is not there."""
    found, details = read_found(record.directory), record.content["details"]
    return Searched(
        arm,
        seed,
        stage,
        task,
        found.trials,
        found.pick.number,
        goal=details["goal"],
        new=details["new"],
        stream=tuple(details["stream"]),
        held_out=tuple(details["held_out"]),
        samples=details["samples"],
        split=details["split"],
        weight=details["weight"],
        method=details["method"],
        test=test,
        answers={number: each.scores for number, each in read_answers(record.directory / ANSWERS_FILE).items()},
    )
