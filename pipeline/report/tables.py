"""The tables of a report: what stands in them, and how they are laid on a terminal or in Markdown.

All figures are percent with one decimal. A table too wide for the terminal is folded: the stage table into its held-out and stream parts
(and further, if need be), the comparison into one small table per figure. Nothing is ever cut off.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.report.comparison import COMPARED, MANY, Arm, after_stage, arm_label, estimate_text, paired_differences, percent
from pipeline.report.run_scores import AFTER, BASE, BEFORE, RunScores, StageScores, mean_with_stderr, rows_of, stage_metrics, stages_done

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SUMMARY = {
    "acc/average": "average accuracy, all tasks",
    "acc/held_out": "accuracy, held-out tasks",
    "acc/stream": "accuracy, stream tasks",
    "learning/own": "own task right after its stage",
    "learning/gain": "learning: own task over base",
    "learning/final_gain": "learning that remains at the end",
    "forgetting/stream": "forgetting: stream, from best",
    "drift/held_out": "held-out drift from base",
    "transfer/backward": "backward transfer",
    "transfer/forward": "forward transfer",
}
SIGNED = ("learning/gain", "learning/final_gain", "drift/held_out", "transfer/backward", "transfer/forward")
MEANS = ("held-out mean", "stream mean", "average")
LONG = 24
"""Letters of a row's name that stand in one line where a terminal is narrow: what is longer goes on in the next."""


@dataclass(frozen=True)
class Grid:
    """One table as text: the first `labels` columns name the rows; `blocks` are columns that stay together when the table is folded."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    blocks: tuple[tuple[str, ...], ...] = ()
    note: str = ""

    def only(self, columns: Iterable[str], title: str | None = None) -> "Grid":
        """The label columns and `columns` alone."""
        chosen = [*range(self.labels), *(self.columns.index(name) for name in columns)]
        rows = tuple(tuple(row[index] for index in chosen) for row in self.rows)
        return replace(self, title=title or self.title, columns=tuple(self.columns[i] for i in chosen), rows=rows, blocks=())


def stage_grid(run: RunScores) -> Grid:
    """Every evaluated model on every task: two rows per stage, before and after the merge; stage 0 is the base."""
    held_out = (*run.held_out, "held-out mean") if run.held_out else ()
    blocks = tuple(block for block in (held_out, (*run.stream, "stream mean"), ("average",)) if block)
    tables = {role: rows_of(run, role) for role in run.roles or (AFTER,)}
    rows = [_stage_row(run, "0 base", BASE, next(iter(tables.values()))[0])]
    for stage in range(1, max(len(entries) for entries in tables.values())):
        name = f"{stage} {run.stream[stage - 1]}"
        for role, entries in tables.items():
            if stage < len(entries):
                rows.append(_stage_row(run, name, role, entries[stage]))
                name = ""
    columns = ("stage", "model", *(column for block in blocks for column in block))
    note = f"merge: {run.weights}" if run.weights else "no merge: each stage goes on from the tuned model"
    note += f"; strategy: {run.strategy}" if run.strategy else ""
    return Grid(f"{run.arm}, seed {run.seed}: accuracy in % after each stage", columns, tuple(rows), 2, blocks, note)


def _stage_row(run: RunScores, name: str, role: str, entry: StageScores) -> tuple[str, ...]:
    cells = [percent(entry.scores[task].accuracy) for task in run.held_out]
    if run.held_out:
        cells.append(percent(mean_with_stderr(entry, run.held_out)[0]))
    cells += [percent(entry.scores[task].accuracy) for task in run.stream]
    cells += [percent(mean_with_stderr(entry, tasks)[0]) for tasks in (run.stream, run.tasks)]
    return (name, role, *cells)


def summary_grid(run: RunScores) -> Grid:
    """The run in figures after its last stage, one column per role; standard errors over samples where they are defined."""
    stage = stages_done(run)
    figures = {role: stage_metrics(run, role, stage) for role in run.roles or (AFTER,)}
    rows = []
    for metric, words in SUMMARY.items():
        cells = [_figure(figures[role], metric) for role in figures]
        if any(cell != "–" for cell in cells):
            rows.append((words, *cells))
    heads = {BEFORE: "before merge", AFTER: "after merge" if run.merges else "last model"}
    note = "± standard error over samples"
    return Grid(f"{after_stage(stage, run.stream)}, in %", ("figure", *(heads[role] for role in figures)), tuple(rows), note=note)


def _figure(figures: dict[str, float], metric: str) -> str:
    if metric not in figures:
        return "–"
    text = percent(figures[metric], metric in SIGNED)
    error = figures.get(metric.replace("acc/", "acc_stderr/")) if metric.startswith("acc/") else None
    return text if error is None else f"{text} ± {percent(error)}"


def comparison_grid(arms: Sequence[Arm], brief: bool = False) -> Grid:
    """One column per arm: mean ± standard error over its seeds. `brief`: without intervals, costs and the tuned models."""
    over = "one seed each, so no standard error over seeds"
    if any(len(arm.runs) > 1 for arm in arms):
        half = "" if brief else " (in brackets: half the width of the 95 % interval, Student's t)"
        over = f"mean ± standard error over seeds{half}"
    title = f"{after_stage(arms[0].stage, arms[0].runs[0].stream)}, in %"
    shown = {metric: words for metric, words in COMPARED.items() if not (brief and metric.startswith(BEFORE))}
    cells = [[estimate_text(arm.figures.get(metric), interval=not brief) for metric in shown] for arm in arms]
    names = list(shown.values())
    if not brief:
        cells = [[*row, *cost_cells(arm)] for row, arm in zip(cells, arms, strict=True)]
        names += ["weights trained", "minutes of fine-tuning"]
    return figures_grid(title, names, [arm.name for arm in arms], cells, "\n".join([over, *_arms_lines(arms)]))


def figures_grid(title: str, figures: Sequence[str], names: Sequence[str], cells: Sequence[Sequence[str]], note: str) -> Grid:
    """`cells` [names, figures] with a column for each name; of many names, a row for each. Figures that nothing has are left out."""
    held = [index for index in range(len(figures)) if any(row[index] != "–" for row in cells)]
    if len(names) < MANY:
        rows = tuple((figures[index], *(row[index] for row in cells)) for index in held)
        return Grid(title, ("figure", *names), rows, note=note)
    columns = tuple(figures[index] for index in held)
    rows = tuple((name, *(row[index] for index in held)) for name, row in zip(names, cells, strict=True))
    return Grid(title, ("arm", *columns), rows, blocks=tuple((column,) for column in columns), note=note)


def cost_cells(arm: Arm) -> list[str]:
    """How many weights a stage trained, and the minutes of all stages, as a mean over the seeds."""
    costs = [run.cost for run in arm.runs if run.cost is not None]
    if not costs:
        return ["–", "–"]
    return [f"{max(cost.trained for cost in costs):,}", f"{sum(cost.seconds for cost in costs) / len(costs) / 60:.1f}"]


def _arms_lines(arms: Sequence[Arm]) -> list[str]:
    """What each arm merges, its seeds and how it trains; arms that share all but the merge stand in one line."""
    alike: dict[str, list[str]] = {}
    for arm in arms:
        seeds = f"seed{'s' if len(arm.runs) > 1 else ''} {', '.join(str(run.seed) for run in arm.runs)}"
        told = "; ".join(part for part in (seeds, arm.training, arm.runs[0].strategy) if part)
        alike.setdefault(told, []).append(arm_label(arm))
    return [f"{', '.join(labels)}: {told}" for told, labels in alike.items()]


def difference_grid(arms: Sequence[Arm]) -> Grid | None:
    """One column per pair of arms that share tasks, training and base: the paired difference; None where there is no such pair."""
    pairs = paired_differences(arms)
    if not pairs:
        return None
    cells = [[estimate_text(pair.figures.get(metric), signed=True, interval=True) for metric in COMPARED] for pair in pairs]
    seeds = sorted({next(iter(pair.figures.values())).count for pair in pairs})
    note = "difference within the one seed that is shared, in percentage points"
    if seeds[-1] > 1:
        shared = f"mean ± standard error of the difference within each seed ({'/'.join(map(str, seeds))} shared)"
        note = f"{shared}, in percentage points; in brackets: half the 95 % interval"
    title = "paired differences between arms that share tasks, training and base model"
    return figures_grid(title, list(COMPARED.values()), [f"{pair.second} − {pair.first}" for pair in pairs], cells, note)


def print_grids(grids: Iterable[Grid], console: "Console") -> None:
    """Lay tables on the terminal, each folded where it is too wide, with its note below."""
    for grid in grids:
        for part in _fitting(grid, console):
            console.print(part.title, style="bold", highlight=False, markup=False)
            console.print(_table(part, LONG if _fits(part, console) else 0))
            console.print()
        for line in grid.note.splitlines():
            console.print(line, style="dim", highlight=False, markup=False)
        console.print()


def _fitting(grid: Grid, console: "Console") -> list[Grid]:
    """`grid` whole where it fits, else folded: into its blocks, each cut where it must be.

    One table per row without blocks, or where a column by itself is too wide.
    """
    if _fits(grid, console):
        return [grid]
    if not grid.blocks or not all(_fits(grid.only([name]), console) for block in grid.blocks for name in block):
        return _by_row(grid)
    parts: list[list[str]] = []
    for block in grid.blocks:
        for start, name in enumerate(block):
            begins = start == 0 and len(block) > 1 and parts and len(parts[-1]) > 1
            if not parts or begins or not _fits(grid.only([*parts[-1], name]), console):
                parts.append([])
            parts[-1].append(name)
    return [grid.only(part, f"{grid.title}: {' to '.join(dict.fromkeys((part[0], part[-1])))}") for part in parts]


def _by_row(grid: Grid) -> list[Grid]:
    """A table for each row, with a line for each column; a label that is left empty is that of the row above."""
    tables, labels = [], ("",) * grid.labels
    for row in grid.rows:
        labels = tuple(own or above for own, above in zip(row[: grid.labels], labels, strict=True))
        lines = tuple(zip(grid.columns[grid.labels :], row[grid.labels :], strict=True))
        tables.append(Grid(f"{', '.join(labels)}, {grid.title}", ("", "value"), lines, labels=2))
    return tables


def _fits(grid: Grid, console: "Console") -> bool:
    """Whether the table has room, long names of rows being laid in several lines."""
    from rich.measure import Measurement

    rows = tuple((*(name[:LONG] for name in row[: grid.labels]), *row[grid.labels :]) for row in grid.rows)
    table = _table(replace(grid, rows=rows))
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum <= console.width


def _table(grid: Grid, wrapped: int = LONG) -> "Table":
    """The table; columns of rows' names that are longer than `wrapped` may go on in the next line."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0))
    for index, column in enumerate(grid.columns):
        style = "cyan" if column in MEANS else ""
        header = column.replace(" ", "\n") if grid.columns[0] == "arm" else column.replace(" mean", "\nmean").replace(" − ", "\n− ")
        name = index < grid.labels
        wraps = name and any(len(row[index]) > wrapped for row in grid.rows)
        table.add_column(Text(header), justify="left" if name else "right", style=style, no_wrap=not wraps, vertical="bottom")
    styles = {BEFORE: "dim", AFTER: "bold"} if grid.labels == 2 else {}
    for row in grid.rows:
        table.add_row(*(Text(cell) for cell in row), style=styles.get(row[1], ""))
    return table


def markdown(grid: Grid) -> str:
    """`grid` as a Markdown table under its title, with its note below."""
    rule = [":---"] * grid.labels + ["---:"] * (len(grid.columns) - grid.labels)
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (grid.columns, rule, *grid.rows)]
    lines = [f"**{grid.title}**", "", *(f"| {' | '.join(row)} |" for row in escaped)]
    if grid.note:
        lines += ["", "  \n".join(grid.note.splitlines())]
    return "\n".join(lines) + "\n"
