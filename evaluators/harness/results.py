"""Read what a harness wrote (aggregated results and logged samples) into our scores and samples.

Layouts, as written by the versions in `environment.VERSIONS`:
lm-eval `results_<date>.json` beside `samples_<task>_<date>.jsonl`; lmms-eval `<date>_results.json` beside `<date>_samples_<task>.jsonl`.
In both, `results[task]["<metric>,<filter>"]` is a metric's aggregate and `["<metric>_stderr,<filter>"]` its standard error (or "N/A");
a sample's line has `doc_id`, `target`, the responses, and each metric's value.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluators.harness.rows import Row, rows_of
from evaluators.harness.spec import Harness, HarnessTask
from evaluators.scores import Sample, TaskScore, task_score
from foundation.errors import ConfigError, InputError

NO_FILTER = "none"
SAME = 1e-6
"""How near the mean of the samples must be to a metric's aggregate to say that the aggregate is their mean."""


@dataclass(frozen=True)
class Metric:
    """One aggregate of one task: its name, the filter the responses went through, its value (0 to 1), its standard error if told."""

    name: str
    filter: str
    value: float
    stderr: float | None

    @property
    def title(self) -> str:
        """As a suite names it: without the filter where there is none."""
        return self.name if self.filter == NO_FILTER else f"{self.name},{self.filter}"


@dataclass(frozen=True)
class Written:
    """What one run of a harness wrote. `report` is its results file; `samples` names the file of a task's samples."""

    harness: Harness
    directory: Path
    date: str
    report: Mapping[str, Any]

    def samples(self, task: str) -> Path:
        """Where the samples of one task (not a group) are."""
        name = f"samples_{task}_{self.date}.jsonl" if self.harness is Harness.LM_EVAL else f"{self.date}_samples_{task}.jsonl"
        return self.directory / name

    def leaves(self, task: str) -> list[str]:
        """The tasks that a group consists of, in its order; a task that is no group consists of itself."""
        below = (self.report.get("group_subtasks") or {}).get(task)
        return [leaf for each in below for leaf in self.leaves(each)] if below else [task]


def find_written(harness: Harness, directory: Path) -> Written | None:
    """The one results file below `directory`; None where there is none. InputError where it cannot be read."""
    pattern = "results_*.json" if harness is Harness.LM_EVAL else "*_results.json"
    found = sorted(directory.rglob(pattern))
    if not found:
        return None
    date = found[-1].stem.removeprefix("results_").removesuffix("_results")
    try:
        report = json.loads(found[-1].read_text())
        report["results"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{found[-1]} is not a results file of {harness.value} ({error}); ask again") from error
    return Written(harness, found[-1].parent, date, report)


def read_task(written: Written, task: HarnessTask) -> tuple[dict[str, TaskScore], list[Sample]]:
    """The scores of one task and its samples in the order of documents (of a group: task by task).

    Scores: NAME, the metric asked for; NAME/<metric> for each further metric in 0 to 1; for a group NAME/<its task>. A metric of the group
    that has no value for single documents has no samples. A metric's standard error is the harness's; where it tells none, that of the
    mean over the documents if the metric is their mean, else 0. Raises ConfigError for a metric that is not reported, InputError for
    files that are not as expected.
    """
    leaves = written.leaves(task.task)
    metrics = metrics_of(written, task.task)
    chosen = choose(metrics, task)
    rows = {leaf: rows_of(written.samples(leaf), chosen.filter) for leaf in leaves}
    every = [row for leaf in leaves for row in rows[leaf]]
    count = effective(written, leaves) or len({id(row) for row in every})
    scores = {task.name: score(chosen, every, count)}
    fits = [metric for metric in metrics.values() if 0 <= metric.value <= 1 and rising(written, task.task, metric)]
    beside = [metric for metric in fits if metric is not chosen]
    for metric in beside:
        title = metric.name if metric.filter == chosen.filter else metric.title
        scores.setdefault(f"{task.name}/{title}", score(metric, every if metric.filter == chosen.filter else [], count))
    if leaves != [task.task]:
        scores |= groups(written, task, chosen, rows)
    names = [metric.name for metric in beside if metric.filter == chosen.filter]
    samples = [
        sample(task, leaf if leaves != [task.task] else "", row, value, names)
        for leaf in leaves
        for row in rows[leaf]
        if (value := row.value(chosen.name)) is not None
    ]
    return scores, samples


def metrics_of(written: Written, task: str) -> dict[str, Metric]:
    """Title -> every number that the harness reports of a task, in its order. ConfigError for a task without numbers of its own."""
    found = {metric.title: metric for metric in _metrics(written.report["results"].get(task) or {})}
    if not found:
        below = ", ".join(leaf for leaf in written.leaves(task) if leaf != task)
        hint = f"it is a list of {below}; name these instead" if below else "look at its log"
        raise ConfigError(f"{written.harness.value} reports no score for {task!r}; {hint}")
    return found


def _metrics(entry: Mapping[str, Any]) -> Iterator[Metric]:
    for key, value in entry.items():
        name, comma, filtered = key.partition(",")
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if comma and number and "_stderr" not in name:
            stderr = entry.get(f"{name}_stderr,{filtered}")
            told = isinstance(stderr, int | float) and math.isfinite(stderr)
            yield Metric(name, filtered, float(value), float(stderr) if told and stderr is not None else None)


def rising(written: Written, task: str, metric: Metric) -> bool:
    """Whether more of the metric is better, as far as the harness says."""
    return ((written.report.get("higher_is_better") or {}).get(task) or {}).get(metric.name) is not False


def choose(metrics: Mapping[str, Metric], task: HarnessTask) -> Metric:
    """The metric that is the task's score: the one it names, else the first in 0 to 1. ConfigError where there is none such."""
    known = ", ".join(f"{metric.title} = {metric.value:g}" for metric in metrics.values())
    fits = [metric for metric in metrics.values() if 0 <= metric.value <= 1]
    if not task.metric:
        if fits:
            return fits[0]
        raise ConfigError(f"{task.harness.value} task {task.task!r} reports no metric in 0 to 1 ({known}); leave the task out")
    named = [metric for metric in metrics.values() if task.metric in (metric.name, metric.title, f"{metric.name},{metric.filter}")]
    if not named:
        raise ConfigError(f"{task.harness.value} task {task.task!r} reports no metric {task.metric!r}; it reports {known}")
    if named[0] not in fits:
        raise ConfigError(f"{task.harness.value} task {task.task!r} reports {task.metric} = {named[0].value:g}; a score lies in 0 to 1")
    return named[0]


def score(metric: Metric, rows: Sequence[Row], count: int) -> TaskScore:
    """A metric as our score. `rows`: the documents it was taken over, where they are logged."""
    values = [value for row in rows if (value := row.value(metric.name)) is not None]
    stderr = metric.stderr
    if stderr is None:
        own = task_score(values) if values else None
        stderr = own.stderr if own and abs(own.accuracy - metric.value) < SAME else 0.0
    return TaskScore(metric.value, stderr, len(values) or count)


def groups(written: Written, task: HarnessTask, chosen: Metric, rows: Mapping[str, Sequence[Row]]) -> dict[str, TaskScore]:
    """NAME/<task> -> the score of each task of a group, by the metric chosen for the group."""
    found = {}
    for leaf, own in rows.items():
        metric = metrics_of(written, leaf).get(chosen.title)
        if metric is not None and 0 <= metric.value <= 1:
            found[f"{task.name}/{leaf}"] = score(metric, own, effective(written, [leaf]))
    return found


def effective(written: Written, leaves: Sequence[str]) -> int:
    """How many documents of these tasks were asked, as the harness counts them; 0 where it does not say."""
    counted = written.report.get("n-samples") or {}
    return sum(int((counted.get(leaf) or {}).get("effective") or 0) for leaf in leaves)


def sample(task: HarnessTask, leaf: str, row: Row, value: float, beside: Sequence[str]) -> Sample:
    """One logged document as a row of `samples.parquet`; `leaf` is its task in a group, "" outside; `beside` names further metrics."""
    measures = {name: other for name in beside if (other := row.value(name)) is not None}
    key = f"{leaf}/{row.key}" if leaf else row.key
    return Sample(task.name, key, row.question, row.answer, row.response, value, row.prompt, leaf, measures)
