"""The report of one run or of several: CSV for machines, PNG and Markdown for people, tables for the terminal.

The input is plain data (`RunScores`), so a report can be made again from stored scores at any time. Everything is composed before the first
file is written; every file is written atomically and is the same bytes for the same scores.

One run gives `matrix_before.csv`, `matrix_after.csv`, `heatmap.png`, `before_after.png`. Several give these per run (matrices) and per arm
(pictures, the mean over seeds), named after the arm and seed, and `comparison.csv`, `differences.csv`, `comparison.png`. Where answers are
there to be paired, `paired.csv` holds every comparison on the same samples; where tasks are learned in several orders, `orders.csv`.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from foundation.errors import InputError
from foundation.files import write_atomic
from pipeline.report.comparison import Arm, Estimate, arm_label, arms_of, paired_differences
from pipeline.report.orders import ORDERS_HEADER, Orders, order_difference_grid, order_differences, orders_grid, orders_of, orders_rows
from pipeline.report.paired import Kind, PairedScores, paired_scores
from pipeline.report.paired_tables import PAIRED_HEADER, paired_grids, paired_rows
from pipeline.report.run_scores import BEFORE, RunScores, rows_of, summary
from pipeline.report.tables import comparison_grid, difference_grid, markdown, stage_grid, summary_grid

WORDS = """\
How to read the figures (accuracies in percent, differences in percentage points; stage 0 is the base model):

* *before*: the tuned model of a stage, before its merge; *after*: the model that goes on to the next stage.
* *own task*: accuracy on each task right after its own stage, mean over stages. *learning*: the same minus the base model's accuracy.
* *learning that remains*: accuracy of the last model minus the base model's, mean over the tasks trained.
* *forgetting, stream*: drop of each earlier task from its best since its own stage (Chaudhry et al. 2018, the variant with the maximum).
* *forgetting, held-out*: drop of the held-out mean from the base model; *held-out drift* is the same with the other sign.
* *backward transfer*: change on earlier tasks since their own stage; *forward transfer*: change on a task before its own stage,
  from the base (Lopez-Paz & Ranzato 2017).
* *intransigence*: how far each task stays behind joint training on it and all before it, right after its own stage, mean over stages
  (Chaudhry et al. 2018). Only where a joint run with the same tasks, seed and base is beside it.
* *± standard error*: over samples for one run, over seeds for several; *95 % interval* over seeds or orders by Student's t.
* *on the same samples*: both models answer the same questions, so the difference is taken question by question. The 95 % interval is the
  percentile bootstrap over questions (Efron 1979; a mean over tasks draws within each task), *p* McNemar's exact p where every score is 0
  or 1 (McNemar 1947), else that of flipped signs (at least 1/10001). *Holm p* is p adjusted for the number of comparisons (Holm 1979): for
  all tasks of all stages of an arm, or of all pairs of arms, and for all means of them. Several seeds together: each question's score is
  its mean over the seeds, so interval and p speak of the questions, for these trained models; how much seeds differ is told by ± over
  seeds.
"""


def write_report(runs: Sequence[RunScores], directory: Path, title: str, scores: PairedScores | None = None) -> list[Path]:
    """Write the report of `runs` into `directory` and give its files, `report.md` last. InputError for runs with gaps or missing scores.

    `scores`: what differs on the same samples, where it is known already.
    """
    arms = arms_of(runs)
    for run in runs:
        for role in run.roles:
            rows_of(run, role)
    found, orders = scores or paired_scores(runs), orders_of(arms)
    files: dict[str, str | bytes] = {"scores.csv": scores_csv(runs), "summary.csv": summary_csv(runs)}
    files |= {f"matrix_{role}{_suffix(runs, run)}.csv": matrix_csv(run, role) for run in runs for role in run.roles}
    if len(runs) > 1:
        files |= {"comparison.csv": comparison_csv(arms), "differences.csv": differences_csv(arms)}
    if rows := paired_rows(found):
        files["paired.csv"] = to_csv(PAIRED_HEADER, rows)
    if orders:
        files["orders.csv"] = to_csv(ORDERS_HEADER, orders_rows(orders))
    files |= pictures(arms, several=len(runs) > 1)
    files["report.md"] = report_markdown(runs, arms, title, found, orders)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(directory / name, content)
    return [directory / name for name in files]


def pictures(arms: Sequence[Arm], several: bool) -> dict[str, bytes]:
    """File name -> PNG."""
    from pipeline.report import plots

    drawn: dict[str, bytes] = {}
    for arm in arms:
        suffix = f"_{slug(arm.name, arms)}" if several else ""
        drawn |= {f"heatmap{suffix}.png": plots.heatmap(arm), f"before_after{suffix}.png": plots.before_after(arm)}
    if several:
        drawn["comparison.png"] = plots.comparison(arms)
    return drawn


def slug(name: str, arms: Sequence[Arm]) -> str:
    """`name` as part of a file name; InputError where two arms would share it."""
    slugs = {arm.name: re.sub(r"[^A-Za-z0-9._-]+", "-", arm.name).strip("-") for arm in arms}
    alike = [other for other, text in slugs.items() if text == slugs[name]]
    if len(alike) > 1:
        raise InputError(f"arms {alike} would share the file name part {slugs[name]!r}; tell their names apart by letters or digits")
    return slugs[name]


def _suffix(runs: Sequence[RunScores], run: RunScores) -> str:
    return f"_{slug(run.arm, arms_of(runs))}_seed{run.seed}" if len(runs) > 1 else ""


def scores_csv(runs: Sequence[RunScores]) -> str:
    """Every score as a row: arm, seed, stage, the task trained, role, the task asked, accuracy, stderr, samples.

    Below a model's tasks stand the parts of their scores, as "pathvqa/f1".
    """
    rows = [
        (run.arm, run.seed, entry.stage, entry.task or "", entry.role, task, score.accuracy, score.stderr, score.samples)
        for run in runs
        for entry in sorted(run.stages, key=lambda entry: (entry.stage, entry.role != BEFORE))
        for task in (*run.tasks, *(part for part in entry.scores if part not in run.tasks))
        for score in (entry.scores[task],)
    ]
    return to_csv(("arm", "seed", "stage", "trained", "role", "task", "accuracy", "stderr", "samples"), rows)


def matrix_csv(run: RunScores, role: str) -> str:
    """One row per stage (0: the base), one column per task: the accuracies of `role`."""
    rows = [(entry.stage, entry.task or "base", *(entry.scores[task].accuracy for task in run.tasks)) for entry in rows_of(run, role)]
    return to_csv(("stage", "trained", *run.tasks), rows)


def summary_csv(runs: Sequence[RunScores]) -> str:
    """Every run's figures after its last stage (one per row), as fractions."""
    rows = [(run.arm, run.seed, run.weights, metric, value) for run in runs for metric, value in summary(run).items()]
    return to_csv(("arm", "seed", "weights", "metric", "value"), rows)


def comparison_csv(arms: Sequence[Arm]) -> str:
    """Every arm's figures: mean over seeds, standard error (empty for one seed), number of seeds, 95 % interval."""
    rows = [(arm.name, arm.weights, arm.training, metric, *_estimate_cells(value)) for arm in arms for metric, value in arm.figures.items()]
    return to_csv(("arm", "weights", "training", "metric", "mean", "stderr", "seeds", "low", "high"), rows)


def differences_csv(arms: Sequence[Arm]) -> str:
    """The paired differences `second` minus `first` between arms that share tasks, training and base model."""
    rows = [
        (pair.first, pair.second, metric, *_estimate_cells(value))
        for pair in paired_differences(arms)
        for metric, value in pair.figures.items()
    ]
    return to_csv(("first", "second", "metric", "mean", "stderr", "seeds", "low", "high"), rows)


def _estimate_cells(value: Estimate) -> tuple[object, ...]:
    """Mean, standard error, seeds, 95 % interval; empty where one seed gives none."""
    half = value.half_width
    bounds = ("", "") if half is None else (value.mean - half, value.mean + half)
    return (value.mean, "" if value.stderr is None else value.stderr, value.count, *bounds)


def to_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV with line feeds; floats in full."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def report_markdown(runs: Sequence[RunScores], arms: Sequence[Arm], title: str, scores: PairedScores, orders: Sequence[Orders] = ()) -> str:
    """The tables and pictures on one page."""
    several = len(runs) > 1
    parts = [f"# {title}\n"]
    if several:
        grids = [comparison_grid(arms), difference_grid(arms), orders_grid(orders), order_difference_grid(order_differences(orders))]
        grids += paired_grids(scores, Kind.ARMS)
        parts += ["## Arms compared\n", *(markdown(grid) for grid in grids if grid), "![arms compared](comparison.png)\n"]
    for arm in arms:
        suffix = f"_{slug(arm.name, arms)}" if several else ""
        parts.append(f"## {arm_label(arm)}\n")
        for run in arm.runs:
            parts += [markdown(stage_grid(run)), markdown(summary_grid(run))]
        own = PairedScores(tuple(contrast for contrast in scores.merges if contrast.arm == arm.name), (), scores.notes)
        parts += [markdown(grid) for grid in paired_grids(own, Kind.MERGE)]
        parts += [f"![stage by task](heatmap{suffix}.png)\n", f"![over the stages](before_after{suffix}.png)\n"]
    return "\n".join([*parts, WORDS])
