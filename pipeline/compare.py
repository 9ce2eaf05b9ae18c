"""Runs to be compared, opened: how far each has come, which models stand against which, and in which settings they differ.

One run is held against itself: each arm's stage before its merge and after it (without merges: the base and the last model), and the arms'
last models against the first arm's. Several runs: the last model of each against the first run's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import yaml

from foundation.errors import ConfigError, InputError
from pipeline.config.experiment import EXPERIMENT_FILE
from pipeline.report.compare.models import Compare, Side, hold_against, side
from pipeline.report.compare.settings import differing_settings
from pipeline.report.run_scores import AFTER, BASE, BEFORE, RunScores, rows_of, stages_done
from pipeline.reports import has_families
from pipeline.results import RUN_FILE, all_scores, read_rows
from pipeline.store import Store


@dataclass(frozen=True)
class Opened:
    """A run as far as it has come. `label` stands for it in tables; `lacking`: how many of its `asked` evaluations are not there."""

    directory: Path
    label: str
    scores: tuple[RunScores, ...]
    asked: int
    lacking: int

    @property
    def name(self) -> str:
        """The run's name: that of its directory."""
        return self.directory.name

    @property
    def file(self) -> Path:
        """The experiment, as it was resolved."""
        return self.directory / EXPERIMENT_FILE


@dataclass(frozen=True)
class Comparisons:
    """All that is held against each other: `merges` within one run, `models` (each against the first), `sides` of all tables of measures.

    `settings`: key -> its value in each run, of those that differ; empty for one run. `notes`: what is unfinished, and the like.
    """

    runs: tuple[Opened, ...]
    merges: tuple[Compare, ...]
    models: tuple[Compare, ...]
    settings: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


def open_run(directory: Path, label: str = "") -> Opened:
    """A run by its directory. InputError where no model was asked beyond the base; ConfigError where it has no stages."""
    found, store = read_rows(directory), Store(directory.parents[1] / "store")
    if has_families(found):
        raise ConfigError(
            f"run {directory.name} compares merges within itself and has no stages; its own tables: python -m pipeline report {directory}"
        )
    scores = tuple(run for run in all_scores(found, store) if run.stages and stages_done(run))
    if not scores:
        only = "its base model alone has been asked" if any(store.by_key(row.evaluation) for row in found) else "no model has been asked"
        raise InputError(
            f"run {directory.name} cannot be compared yet: {only}; finish it: python -m pipeline run {directory / EXPERIMENT_FILE}"
        )
    return Opened(directory, label or directory.name, scores, len(found), sum(store.by_key(row.evaluation) is None for row in found))


def compare_runs(runs: Sequence[Opened], stage: int | None = None) -> Comparisons:
    """The comparisons of opened runs, after `stage` (None: the last that is done). InputError where a run has not come so far."""
    notes = [note for run in runs for note in _unfinished(run)]
    if stage is not None:
        for run in runs:
            _check_stage(run, stage)
    if len(runs) == 1:
        merges, models = _within(runs[0], stage)
        return Comparisons(tuple(runs), merges, models, {}, tuple(notes))
    sides = _last_models(runs, stage, notes)
    return Comparisons(tuple(runs), (), _against_first(sides), differing_settings([run.file for run in runs]), tuple(notes))


def _within(run: Opened, stage: int | None) -> tuple[tuple[Compare, ...], tuple[Compare, ...]]:
    """Of one run: before against after in each arm, and the arms' last models against the first arm's."""
    merges, sides = [], []
    for name, group in groupby(run.scores, key=lambda each: each.arm):
        members = list(group)
        at = min(stages_done(each) for each in members) if stage is None else stage
        base = side("base", BASE, 0, members, run.scores)
        after = side(name, AFTER, at, members, run.scores)
        before = side(name, BEFORE, at, members, run.scores) if all(_has_before(each, at) for each in members) else base
        merges.append(hold_against(before, after, base))
        sides.append(after)
    reached = min(each.stage for each in sides)
    return tuple(merges), _against_first([side(each.name, AFTER, reached, each.runs, run.scores) for each in sides])


def _last_models(runs: Sequence[Opened], stage: int | None, notes: list[str]) -> list[Side]:
    """The last model of every arm of every run. Of runs with the same tasks in the same order: after the last stage that all have done."""
    beside = [score for run in runs for score in run.scores]
    alike = len({(score.stream, score.held_out) for score in beside}) == 1
    reached = min(stages_done(score) for score in beside)
    sides = []
    for run in runs:
        arms = [(arm, list(group)) for arm, group in groupby(run.scores, key=lambda each: each.arm)]
        for arm, members in arms:
            name = f"{run.label} {arm}" if len(arms) > 1 else run.label
            last = min(stages_done(each) for each in members)
            at = stage if stage is not None else reached if alike else last
            if at < last and stage is None:
                notes.append(f"{name} has done {last} stages; compared after stage {at}, the last that all have done")
            sides.append(side(name, AFTER, at, members, beside))
    if not alike:
        notes.append("the runs learn or ask other tasks: measures are over each run's own, means over the tasks that both were asked")
    return sides


def _against_first(sides: Sequence[Side]) -> tuple[Compare, ...]:
    first, *others = sides
    return tuple(hold_against(first, other) for other in others)


def _has_before(run: RunScores, stage: int) -> bool:
    return run.merges and len(rows_of(run, BEFORE)) > stage


def _check_stage(run: Opened, stage: int) -> None:
    whole, reached = len(run.scores[0].stream), min(stages_done(each) for each in run.scores)
    if not 1 <= stage <= whole:
        raise ConfigError(f"--stage {stage}: run {run.name} has stages 1 to {whole}; stage 0 is the base, which stands in every table")
    if stage > reached:
        raise InputError(
            f"--stage {stage}: run {run.name} has come to stage {reached} of {whole}; finish it: python -m pipeline run {run.file}"
        )


def _unfinished(run: Opened) -> list[str]:
    if not run.lacking:
        return []
    reached = min(stages_done(each) for each in run.scores)
    whole = len(run.scores[0].stream)
    return [f"{run.name} is unfinished ({run.lacking} of {run.asked} evaluations are not there): compared after stage {reached} of {whole}"]


def other_runs(run: Opened) -> list[str]:
    """The names of other runs in the workspace that come from the same experiment, the newest first."""
    mine = _experiment(run.directory)
    others = [path for path in run.directory.parent.iterdir() if path != run.directory and (path / RUN_FILE).exists()]
    newest = sorted(others, key=lambda path: (path / RUN_FILE).stat().st_mtime, reverse=True)
    return [path.name for path in newest if mine and _experiment(path) == mine]


def _experiment(directory: Path) -> str:
    try:
        told = yaml.safe_load((directory / EXPERIMENT_FILE).read_text()) or {}
        return str((told.get("tracking") or {}).get("experiment") or "")
    except (OSError, yaml.YAMLError, AttributeError):
        return ""
