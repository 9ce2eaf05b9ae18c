"""The end of a run on the terminal: tables, where things lie, how to see it in MLflow. And `report`, which does it again."""

import shlex
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from pipeline.config.experiment import Built
from pipeline.report.page import PAGE_FILE
from pipeline.report.run_scores import RunScores
from pipeline.report.terminal import print_tables
from pipeline.reports import has_families, print_report, report_of, stages_report
from pipeline.results import RUN_FILE, all_scores, read_rows, rows
from pipeline.runner import Finished
from pipeline.store import Store
from pipeline.tracking.links import compare_runs, ui_base, view_page
from pipeline.tracking.views import CURVES_VIEW, STAGES_VIEW


def print_finished(built: Built, finished: Finished, console: Console, arguments: list[str]) -> None:
    """Tables, places and the next commands."""
    store = Store(built.workspace / "store")
    console.print()
    print_report(rows(built.milestones, built.config.recipe), store, console, finished.paired)
    mirrored = finished.mirrored
    base = ui_base(mirrored.uri)
    side_by_side = compare_runs(base, mirrored.experiment, mirrored.compared)
    if len(mirrored.compared) > 2:  # several arms: the table of all asked models
        side_by_side = view_page(base, mirrored.experiment, STAGES_VIEW)
    page = finished.report / PAGE_FILE
    lines = [
        "",
        f"checkpoints  {_shown(built.run_directory / 'checkpoints')}",
        f"report       {_shown(page) + ' and ' if page.exists() else ''}{_shown(finished.report / 'report.md')}",
        f"compare      {side_by_side}",
        f"curves       {view_page(base, mirrored.experiment, CURVES_VIEW, charts=True)}",
        f"MLflow       python -m pipeline ui --workspace {_shown(built.workspace)}   (then open the links above)",
        f"next         python -m pipeline run {shlex.join(_with_other_alpha(built, arguments))}   (what is the same is not done again)",
    ]
    if not mirrored.uri.startswith("sqlite"):
        lines = [line for line in lines if not line.startswith("MLflow")]
    alphas = built.config.recipe == "wise_ft" and built.config.merge.plain
    if not any(milestone.weights for milestone in built.milestones) or not alphas:
        lines.pop()
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _with_other_alpha(built: Built, arguments: list[str]) -> list[str]:
    """The command with another alpha than it had."""
    alpha = 0.7 if getattr(built.config, "alpha", None) == 0.3 else 0.3
    return [*(argument for argument in arguments if not argument.startswith("alpha=")), f"alpha={alpha}"]


def report_runs(names: list[str], workspace: Path, output: Path | None, console: Console) -> None:
    """Write the report of one run again, or lay several runs side by side."""
    if len(set(names)) < len(names):
        raise ConfigError(f"a run is named twice: {' '.join(names)}; name each once")
    directories = [run_directory(name, workspace) for name in names]
    merging = [directory.name for directory in directories if has_families(read_rows(directory))]
    if merging and len(names) > 1:
        raise ConfigError(f"run {merging[0]} compares merges within itself and cannot be laid beside other runs; report it alone")
    place = output or (directories[0] / "report" if len(names) == 1 else workspace / "runs" / "report")
    scores = [] if merging else [run for directory in directories for run in scores_of(directory, len(names) > 1)]
    if len(names) == 1:
        found, store = read_rows(directories[0]), Store(directories[0].parent.parent / "store")
        written = report_of(directories[0], found, store, place)
        print_report(found, store, console, written.paired)
    else:
        written = stages_report(directories, scores, place)
        print_tables(scores, console, written.paired)
    files = written.files
    console.print(f"\nreport  {_shown(files[-1])} and {len(files) - 1} files beside it", highlight=False, soft_wrap=True)


def scores_of(directory: Path, named: bool) -> list[RunScores]:
    """The scores of every arm and seed of a run, `named` after it too; InputError where no model was asked yet."""
    found = all_scores(read_rows(directory), Store(directory.parent.parent / "store"))
    if any(not run.stages for run in found):
        raise InputError(
            f"run {directory.name} has no evaluated model yet; finish it: python -m pipeline run {directory / 'experiment.yaml'}"
        )
    return [replace(run, arm=" ".join(filter(None, (directory.name, run.arm)))) for run in found] if named else found


def run_directory(name: str, workspace: Path) -> Path:
    for candidate in (Path(name), workspace / "runs" / name):
        if (candidate / RUN_FILE).exists():
            return candidate.absolute()
    runs = workspace / "runs"
    known = [path.name for path in runs.iterdir() if (path / RUN_FILE).exists()] if runs.is_dir() else []
    if known:
        raise InputError(f"{unknown('run', name, known)} (in {runs})")
    advice = "run an experiment first, or name its workspace with --workspace"
    raise InputError(f"there is no run {name!r}: {runs} {'holds no run' if runs.is_dir() else 'does not exist'}; {advice}")


def _shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
