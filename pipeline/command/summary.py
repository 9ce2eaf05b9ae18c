"""The end of a run on the terminal: tables, where things lie, how to see it in MLflow. And `report`, which does it again."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from pipeline.command.arguments import in_job
from pipeline.config.experiment import Built
from pipeline.report.page import PAGE_FILE
from pipeline.report.run_scores import RunScores
from pipeline.report.terminal import print_tables
from pipeline.reports import has_families, print_report, report_of, stages_report
from pipeline.results import RUN_FILE, all_scores, read_rows, rows
from pipeline.runner import Finished
from pipeline.store import Store
from pipeline.tracking.backend import without_password
from pipeline.tracking.links import compare_runs, ui_base, view_page
from pipeline.tracking.views import CURVES_VIEW, STAGES_VIEW


def print_finished(built: Built, finished: Finished, console: Console, arguments: list[str], options: Sequence[str] = ()) -> None:
    """Tables, places and the next commands, on the same Ray; a line of its own where MLflow lacks some of the run.

    `arguments`: the file and its overrides, as they were typed. `options`: which Ray was asked for.
    """
    store = Store(built.workspace / "store")
    console.print()
    print_report(rows(built.milestones, built.config.recipe), store, console, finished.paired)
    page = finished.report / PAGE_FILE
    lines = [
        "",
        f"checkpoints  {_shown(built.run_directory / 'checkpoints')}",
        f"report       {_shown(page) + ' and ' if page.exists() else ''}{_shown(finished.report / 'report.md')}",
        *_mlflow_lines(built, finished),
        *_next_lines(built, arguments, options),
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _mlflow_lines(built: Built, finished: Finished) -> list[str]:
    """The pages that show the run, or why there are none yet."""
    mirrored = finished.mirrored
    lacking = [f"MLflow       {finished.lacking}"] if finished.lacking else []
    if mirrored is None:
        return lacking
    base = ui_base(mirrored.uri)
    side_by_side = compare_runs(base, [mirrored.experiment], mirrored.compared)
    if len(mirrored.compared) > 2:  # several arms: the table of all asked models
        side_by_side = view_page(base, mirrored.experiment, STAGES_VIEW)
    curves = view_page(base, mirrored.experiment, CURVES_VIEW, charts=True)
    lines = [f"side by side {side_by_side}", f"curves       {curves}"]
    if mirrored.uri.startswith("sqlite"):
        lines.append(f"MLflow       python -m pipeline ui --workspace {shlex.quote(_shown(built.workspace))}   (then open the links above)")
    return [*lines, *lacking]


def _next_lines(built: Built, arguments: list[str], options: Sequence[str]) -> list[str]:
    """What to do next: compare before and after (with another run of the experiment where there is one), and run with another alpha."""
    lines = []
    if not any(milestone.family for milestone in built.milestones):
        others = [path for path in sorted(built.run_directory.parent.glob("*")) if _same_experiment(built, path)]
        words = [built.name, *(path.name for path in others[:1])]
        told = "what differs from it, by which settings" if others else "what the merges changed, with intervals"
        place = [] if built.workspace == Path.cwd() else ["--workspace", _shown(built.workspace)]
        lines.append(f"compare      {shlex.join(['python', '-m', 'pipeline', 'compare', *words, *place])}   ({told})")
    alphas = built.config.recipe == "wise_ft" and built.config.merge.plain
    if any(milestone.weights for milestone in built.milestones) and alphas:
        command = shlex.join(without_password(each) for each in [*_with_other_alpha(built, arguments), *options])
        lines.append(f"next         python -m pipeline {'submit' if in_job() else 'run'} {command}   (what is the same is not done again)")
    return lines


def _same_experiment(built: Built, directory: Path) -> bool:
    """Whether another run in the workspace has this one's name but for its overrides, and came to an end."""
    named = directory.name == built.config.name or directory.name.startswith(f"{built.config.name}-")
    return named and directory != built.run_directory and (directory / "report").is_dir()


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
        file = shlex.quote(str(directory / "experiment.yaml"))
        raise InputError(f"run {directory.name} has no evaluated model yet; finish it: python -m pipeline run {file}")
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
