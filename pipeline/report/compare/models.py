"""Two models held against each other, task by task, as plain data: what `compare` shows and what MLflow is given.

A side is one model, or the same model of several seeds. Where both sides answered the same samples they are compared question by question
(`paired.py`); where they did not, the interval is that of two independent samples, and there is no p.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from evaluators.scores import TaskScore
from foundation.errors import InputError
from pipeline.report.comparison import Estimate, estimate, figures_of
from pipeline.report.paired import AVERAGE, HELD_OUT_MEAN, STREAM_MEAN, Compared, Kind, paired_scores
from pipeline.report.run_scores import BASE, BEFORE, RunScores, StageScores, rows_of
from pipeline.report.tables import SUMMARY

MEASURES = {**SUMMARY, "intransigence": "intransigence, from joint"}
"""Metric -> words: the continual measures that are laid side by side."""
FALLING = ("forgetting/stream", "intransigence")
"""Measures that are better the lower they are."""
NORMAL_95 = 1.959964
"""How many standard errors the 95 % interval of two independent samples reaches to either side."""


class LineOf(StrEnum):
    """What a line is about."""

    TASK = "task"
    MEAN = "mean"


@dataclass(frozen=True)
class Side:
    """A model after `stage`, of each of `runs` (its seeds); `role` as in `StageScores`. `figures`: seed -> metric -> value."""

    name: str
    role: str
    stage: int
    runs: tuple[RunScores, ...]
    figures: Mapping[int, Mapping[str, float]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Held-out tasks, then the stream."""
        return self.runs[0].tasks

    @property
    def stages(self) -> int:
        """How many stages there will be."""
        return len(self.runs[0].stream)

    @property
    def trained(self) -> str | None:
        """The task of the stage."""
        return self.runs[0].stream[self.stage - 1] if self.stage else None

    def model(self, run: RunScores) -> StageScores:
        """The model of one seed."""
        return rows_of(run, self.role)[self.stage]

    @property
    def models(self) -> list[StageScores]:
        """The models of all seeds."""
        return [self.model(run) for run in self.runs]


@dataclass(frozen=True)
class Line:
    """A task, or a mean over several: both sides, their difference over the seeds, and on the samples its 95 % interval and p."""

    name: str
    of: LineOf
    base: float | None
    first: float
    second: float
    seeds: Estimate
    samples: int
    paired: bool
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted: float | None = None

    @property
    def difference(self) -> float:
        """`second` − `first`."""
        return self.seeds.mean

    @property
    def beyond(self) -> bool:
        """Whether every interval that is known, and at least one is, lies on one side of zero."""
        ends = [(self.low, self.high)] if self.low is not None and self.high is not None else []
        if self.seeds.half_width is not None:
            ends.append((self.seeds.mean - self.seeds.half_width, self.seeds.mean + self.seeds.half_width))
        return bool(ends) and (all(low > 0 for low, _ in ends) or all(high < 0 for _, high in ends))


@dataclass(frozen=True)
class Compare:
    """`second` against `first`: a line per task that both were asked, then the means over these.

    `apart`: tasks that one side alone was asked, which are in no mean. `notes`: what was not compared sample by sample, and why.
    """

    first: Side
    second: Side
    lines: tuple[Line, ...]
    apart: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    notes: tuple[str, ...] = ()

    @property
    def several(self) -> bool:
        """Whether a difference is a mean over seeds."""
        return any(line.seeds.count > 1 for line in self.lines)


def side(name: str, role: str, stage: int, runs: Sequence[RunScores], beside: Sequence[RunScores]) -> Side:
    """The model in `role` after `stage`, of each of `runs`; `beside`: all runs at hand, among which may be one with joint training."""
    figures = {}
    for run in runs:
        found = figures_of(run, stage, beside)
        before = {metric.removeprefix("before_merge/"): value for metric, value in found.items() if metric.startswith("before_merge/")}
        after = {metric: value for metric, value in found.items() if not metric.startswith("before_merge/")}
        figures[run.seed] = before if role == BEFORE else after
    return Side(name, role, stage, tuple(sorted(runs, key=lambda run: run.seed)), figures)


def hold_against(first: Side, second: Side, base: Side | None = None) -> Compare:
    """`second` against `first`, on the tasks that both were asked. `base`: a model to be shown beside them."""
    shared = [task for task in first.tasks if task in second.tasks]
    apart = (tuple(t for t in first.tasks if t not in shared), tuple(t for t in second.tasks if t not in shared))
    members, notes = _members(first, second)
    if members:
        first = replace(first, runs=tuple(one for one, _ in members))
        second = replace(second, runs=tuple(other for _, other in members))
    alike, told = _alike(first, second, members, shared)
    found = _paired(first, second, members, alike)
    if sums := [task for task in alike if task not in found]:
        told.append(f"not paired, as the score is no mean over stored samples: {', '.join(sums)}")
    groups = {HELD_OUT_MEAN: first.runs[0].held_out, STREAM_MEAN: first.runs[0].stream, AVERAGE: first.tasks}
    lines = [_line(task, (task,), first, second, base, members, found.get(task)) for task in shared]
    for title, asked in groups.items():
        own = tuple(task for task in asked if task in shared)
        if own and (title != AVERAGE or first.runs[0].held_out):
            whole = found.get(title) if all(task in found for task in own) else None
            lines.append(_line(title, own, first, second, base, members, whole))
    return Compare(first, second, tuple(lines), apart, (*notes, *told))


def measures(first: Side, second: Side) -> dict[str, tuple[Estimate | None, Estimate | None, Estimate | None]]:
    """Metric -> `first`, `second`, and their difference over the seeds that both have (of one seed each: of these)."""
    members, _ = _members(first, second)
    found = {}
    for metric in MEASURES:
        values = [[each.figures[run.seed].get(metric, math.nan) for run in each.runs] for each in (first, second)]
        own = [None if any(math.isnan(value) for value in column) else estimate(column) for column in values]
        if own != [None, None]:
            pairs = [(first.figures[one.seed].get(metric), second.figures[other.seed].get(metric)) for one, other in members]
            whole = [after - before for before, after in pairs if before is not None and after is not None]
            found[metric] = (own[0], own[1], estimate(whole) if whole and len(whole) == len(pairs) else None)
    return found


def _members(first: Side, second: Side) -> tuple[list[tuple[RunScores, RunScores]], list[str]]:
    """The seeds that are held against each other: those that both have; where none is shared the one against the one, else nothing."""
    by_seed = {run.seed: run for run in second.runs}
    shared = [(run, by_seed[run.seed]) for run in first.runs if run.seed in by_seed]
    if not shared and len(first.runs) == len(second.runs) == 1:
        return [(first.runs[0], second.runs[0])], [f"seeds differ: {first.runs[0].seed} and {second.runs[0].seed}"]
    left = {run.seed for each in (first, second) for run in each.runs} - {one.seed for one, _ in shared}
    if not left or not shared:
        return shared, []
    return shared, [f"left out, as one side alone has them: seeds {', '.join(map(str, sorted(left)))}"]


def _alike(first: Side, second: Side, members: Sequence[tuple[RunScores, RunScores]], shared: Sequence[str]) -> tuple[list[str], list[str]]:
    """The tasks on which all models answered the same questions; and a line on those where they did not."""
    models = [(each, entry) for one, other in members for each, entry in ((one, first.model(one)), (other, second.model(other)))]
    if not models:
        return [], ["no seed is shared: means over each side's own seeds, and no interval"]
    if any(entry.samples is None for _, entry in models):
        return [], ["the answers of a model are gone, so nothing is compared sample by sample: differences of means, intervals unpaired"]
    asked = [_questions(entry.samples, shared) for _, entry in models if entry.samples is not None]
    alike = [task for task in shared if task in asked[0] and all(other.get(task) == asked[0][task] for other in asked)]
    apart = [task for task in shared if task not in alike]
    told = f"not the same samples, so not paired (their intervals are those of independent samples): {', '.join(apart)}"
    return alike, [told] if apart else []


def _paired(first: Side, second: Side, members: Sequence[tuple[RunScores, RunScores]], alike: Sequence[str]) -> dict[str, Compared]:
    """Task or mean -> what was found on the same samples, all seeds together. Each model becomes a run without stages of its own."""
    if not alike or not members:
        return {}
    whole = first.runs[0]
    stream, held_out = (tuple(task for task in tasks if task in alike) for tasks in (whole.stream, whole.held_out))
    if not stream:
        stream, held_out = held_out, ()
    runs = []
    for arm, each, place in (("first", first, 0), ("second", second, 1)):
        for seed, pair in enumerate(members):
            entry = replace(each.model(pair[place]), stage=0, role=BASE, task=None)
            runs.append(RunScores(arm, seed, stream, held_out, "", (entry,)))
    found = paired_scores(runs).together(Kind.ARMS)
    if not found:
        return {}
    whole_of = dict(found[0].of)
    if not held_out and STREAM_MEAN in whole_of:
        whole_of[HELD_OUT_MEAN] = whole_of[AVERAGE] = whole_of[STREAM_MEAN]
    return whole_of


def _line(
    name: str,
    tasks: tuple[str, ...],
    first: Side,
    second: Side,
    base: Side | None,
    members: Sequence[tuple[RunScores, RunScores]],
    found: Compared | None,
) -> Line:
    of = LineOf.TASK if tasks == (name,) else LineOf.MEAN
    pairs = [(first.model(one).scores, second.model(other).scores) for one, other in members]
    differences = [_mean(after, tasks) - _mean(before, tasks) for before, after in pairs]
    start, own, others = None if base is None else _over_seeds(base, tasks), _over_seeds(first, tasks), _over_seeds(second, tasks)
    over = estimate(differences) if differences else Estimate(others - own, None, 1)
    samples = sum(first.models[0].scores[task].samples for task in tasks)
    line = Line(name, of, start, own, others, over, samples, found is not None)
    if found is not None:
        return replace(line, low=found.found.low, high=found.found.high, p=found.found.p, adjusted=found.adjusted)
    if len(pairs) == 1:
        half = NORMAL_95 * math.sqrt(sum(_stderr(scores, tasks) ** 2 for scores in pairs[0]))
        return replace(line, low=over.mean - half, high=over.mean + half)
    return line


def _over_seeds(each: Side, tasks: Sequence[str]) -> float:
    return math.fsum(_mean(model.scores, tasks) for model in each.models) / len(each.runs)


def _mean(scores: Mapping[str, TaskScore], tasks: Sequence[str]) -> float:
    return math.fsum(scores[task].accuracy for task in tasks) / len(tasks)


def _stderr(scores: Mapping[str, TaskScore], tasks: Sequence[str]) -> float:
    return math.sqrt(math.fsum(scores[task].stderr ** 2 for task in tasks)) / len(tasks)


def _questions(path: Path, names: Sequence[str]) -> dict[str, frozenset[tuple[str, str, str]]]:
    """Task -> the key, question and right answer of every sample: keys alone may be the same numbers for other data."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["task", "key", "question", "answer"])
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} cannot be read as answers ({error}); remove its directory and run the experiment again") from error
    task, *columns = (table[name].to_pylist() for name in table.column_names)
    found: dict[str, set[tuple[str, str, str]]] = {name: set() for name in names}
    for name, key, question, answer in zip(task, *columns, strict=True):
        if name in found:
            found[name].add((key, question, answer))
    return {name: frozenset(samples) for name, samples in found.items() if samples}
