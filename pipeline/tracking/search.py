"""A search in MLflow: its trials as runs nested in the search's own run, its pictures and tables as artifacts of that run.

A trial has the metric keys of an evaluation (`acc/<task>`, `acc/average`, …) at the step of its stage, and `search/value`, so trials lie
on one chart with models; its parameters are the point alone, so MLflow's compare page draws them as parallel coordinates. The search's run
carries `search/value` over the trials' numbers. Scores are those of the split that was searched, and each run says so.

All is found by key and carries the time of the search's record, so writing it again adds nothing.
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.report.run_scores import StageScores, mean_with_stderr
from pipeline.report.search_figures import Group, Searched, margin, measured, point_key, point_words, score_on_test
from pipeline.report.search_write import write_search_report
from pipeline.search.spec import Trial
from pipeline.tracking.book import Book, Metric
from pipeline.tracking.scores import metric_name

KIND, ROOM = "trial", "search"
LAYOUT = 1  # of what is written per trial; a higher one has finished trials written again
PICKED, OTHER = "#d97706", "#93b4ea"
"""Colours of the pick's run and of the others, as MLflow's charts draw them."""
Tags = Callable[[Mapping[str, str]], dict[str, str]]


def mirror_search(
    book: Book, run: str, key: str, searched: Searched, finished: float, tags: Tags = dict, notes: Sequence[str] = ()
) -> list[str]:
    """Write a search below `run`, its run in the book, and give the ids of its trials' runs in order of number.

    `key` is unique to the search within the book (its step's), `finished` the time of its record in seconds, `tags` adds those that every
    run carries. `run` itself is neither ended nor stamped: its owner does both, after this.
    """
    stamp = f"{LAYOUT} {finished}"
    keys = [f"{key}/trial{trial.number}/{digest_of(trial)}" for trial in searched.trials]
    if any(not book.stamped(each, stamp) for each in keys):
        write_whole(book, run, searched, finished, notes)
    return [write_trial(book, run, each, searched, trial, finished, stamp, tags) for each, trial in zip(keys, searched.trials, strict=True)]


def digest_of(trial: Trial) -> str:
    """A point in eight letters: a search that is made again may come upon other points, and MLflow lets no parameter change."""
    return hashlib.sha256(repr(point_key(trial.point)).encode()).hexdigest()[:8]


def write_whole(book: Book, run: str, searched: Searched, finished: float, notes: Sequence[str]) -> None:
    """What the search's own run says: what was picked and by how much, the value of each trial, the report."""
    told: dict[str, Any] = {"goal": searched.goal, "trials": len(searched.trials), "split": searched.split, "samples": searched.samples}
    book.describe(run, told, {"mergeline.picked": point_words(searched.picked.point)})
    points = [Metric("search/value", trial.value, finished, trial.number) for trial in searched.trials]
    numbers = {name: value for name, value in searched.picked.point.items() if not isinstance(value, str)}
    points += [Metric(f"search/picked/{name}", float(value), finished, searched.stage) for name, value in numbers.items()]
    points.append(Metric("search/best", searched.picked.value, finished, searched.stage))
    found = {"search/margin": margin(searched), "search/test": score_on_test(searched)}
    for name, value in found.items():
        if value is not None:
            points.append(Metric(name, value.value, finished, searched.stage))
            points += [] if value.stderr is None else [Metric(f"{name}_stderr", value.stderr, finished, searched.stage)]
    book.log(run, points)
    with tempfile.TemporaryDirectory() as scratch:
        title = f"Search, stage {searched.stage}{f': {searched.task}' if searched.task else ''}"
        for path in write_search_report([searched], Path(scratch), title, notes):
            book.client.log_artifact(run, str(path), ROOM)


def write_trial(book: Book, parent: str, key: str, searched: Searched, trial: Trial, finished: float, stamp: str, tags: Tags) -> str:
    """One trial's run, closed and stamped."""
    picked = trial.number == searched.pick
    told = {
        "mergeline.kind": KIND,
        "mergeline.stage": str(searched.stage),
        "mergeline.arm": searched.arm,
        "mergeline.seed": str(searched.seed),
        "mergeline.trial": str(trial.number),
    }
    run = book.run(key, f"s{searched.stage} trial {trial.number}: {point_words(trial.point)}", tags(told), finished - trial.seconds, parent)
    if book.stamped(key, stamp):
        return run
    params = {name: value if isinstance(value, str) else f"{value:.6g}" for name, value in trial.point.items()}
    changing = {"mergeline.picked": str(picked).lower(), "mergeline.stopped": str(trial.stopped).lower()}
    color = {"mlflow.runColor": PICKED if picked else OTHER}
    book.describe(run, params, {**changing, **color, "mergeline.split": searched.split, "mergeline.samples": str(trial.samples)})
    book.log(run, trial_metrics(searched, trial, finished))
    book.end(run, "FINISHED", finished)
    book.stamp(run, stamp)
    return run


def trial_metrics(searched: Searched, trial: Trial, finished: float) -> list[Metric]:
    """The value and, where there are scores, those of each task and the means over all, held-out and stream tasks, with standard errors."""
    values = {"search/value": trial.value, "total/seconds": trial.seconds}
    error = measured(searched, trial, Group.GOAL)
    values |= {} if error is None or error.stderr is None else {"search/value_stderr": error.stderr}
    entry = StageScores(searched.stage, searched.task, KIND, dict(trial.scores))
    asked = [task for task in searched.tasks if task in trial.scores]
    groups = {"average": asked, "held_out": [task for task in asked if task in searched.held_out]}
    groups["stream"] = [task for task in asked if task not in searched.held_out]
    for group, members in groups.items():
        if members:
            values[f"acc/{group}"], values[f"acc_stderr/{group}"] = mean_with_stderr(entry, tuple(members))
    for name, score in sorted(trial.scores.items()):
        values[f"acc/{metric_name(name)}"] = score.accuracy
        values |= {f"acc_stderr/{metric_name(name)}": score.stderr} if name in asked else {}
    return [Metric(key, value, finished, searched.stage) for key, value in values.items()]
