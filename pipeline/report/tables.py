"""The tables of a report: what stands in them, and how they are laid on a terminal or in Markdown.

All figures are percent with one decimal. A table too wide for the terminal is folded: the stage table into its held-out and stream parts
(and further, if need be), the comparison into one small table per figure. Nothing is ever cut off.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.report.comparison import COMPARED, MANY, Arm, after_stage, arm_label, arms_of, estimate_text, paired_differences, percent
from pipeline.report.run_scores import AFTER, BASE, BEFORE, RunScores, StageScores, mean_with_stderr, rows_of, stage_metrics, stages_done

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pipeline.report.paired import PairedScores

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


def comparison_grid(arms: Sequence[Arm]) -> Grid:
    """One column per arm: mean ± standard error over its seeds."""
    over = (
        "mean ± standard error over seeds (in brackets: half the width of the 95 % interval, Student's t)"
        if any(len(arm.runs) > 1 for arm in arms)
        else "one seed each, so no standard error over seeds"
    )
    note = "\n".join([over, *(_arm_line(arm) for arm in arms)])
    title = f"{after_stage(arms[0].stage, arms[0].runs[0].stream)}, in %"
    cells = [[estimate_text(arm.figures.get(metric), interval=True) for metric in COMPARED] + cost_cells(arm) for arm in arms]
    return figures_grid(title, [*COMPARED.values(), "weights trained", "minutes of fine-tuning"], [arm.name for arm in arms], cells, note)


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


def _arm_line(arm: Arm) -> str:
    seeds = ", ".join(str(run.seed) for run in arm.runs)
    told = [part for part in (arm.training, arm.runs[0].strategy) if part]
    return f"{arm_label(arm)}: seed{'s' if len(arm.runs) > 1 else ''} {'; '.join([seeds, *told])}"


def difference_grid(arms: Sequence[Arm]) -> Grid | None:
    """One column per pair of arms that share tasks, training and base: the paired difference; None where there is no such pair."""
    pairs = paired_differences(arms)
    if not pairs:
        return None
    cells = [[estimate_text(pair.figures.get(metric), signed=True, interval=True) for metric in COMPARED] for pair in pairs]
    seeds = sorted({next(iter(pair.figures.values())).count for pair in pairs})
    note = (
        f"mean ± standard error of the difference within each seed ({'/'.join(map(str, seeds))} shared), in percentage points; "
        "in brackets: half the 95 % interval"
    )
    title = "paired differences between arms that share tasks, training and base model"
    return figures_grid(title, list(COMPARED.values()), [f"{pair.second} − {pair.first}" for pair in pairs], cells, note)


def print_tables(runs: Sequence[RunScores], console: "Console", scores: "PairedScores | None" = None) -> None:
    """Lay the runs' tables on the terminal: a single run stage by stage with its summary; several runs as a comparison of arms.

    Below them what differs on the same samples: `scores`, or what is found now where that is None.
    """
    from pipeline.report.orders import order_difference_grid, order_differences, orders_grid, orders_of
    from pipeline.report.paired import Kind, paired_scores
    from pipeline.report.paired_tables import paired_grids

    arms, found = arms_of(runs), scores or paired_scores(runs)
    if len(runs) == 1:
        grids: list[Grid | None] = [stage_grid(runs[0]), summary_grid(runs[0])]
    else:
        orders = orders_of(arms)
        grids = [comparison_grid(arms), difference_grid(arms), orders_grid(orders), order_difference_grid(order_differences(orders))]
    grids += paired_grids(found, Kind.MERGE if len(arms) == 1 else Kind.ARMS)
    print_grids((grid for grid in grids if grid is not None), console)


def print_grids(grids: Iterable[Grid], console: "Console") -> None:
    """Lay tables on the terminal, each folded where it is too wide, with its note below."""
    for grid in grids:
        for part in _fitting(grid, console):
            console.print(part.title, style="bold", highlight=False, markup=False)
            console.print(_table(part))
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
        tables.append(Grid(f"{', '.join(labels)}, {grid.title}", ("", "value"), lines))
    return tables


def _fits(grid: Grid, console: "Console") -> bool:
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(max_width=10_000), _table(grid)).maximum <= console.width


def _table(grid: Grid) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0))
    for index, column in enumerate(grid.columns):
        style = "cyan" if column in MEANS else ""
        header = column.replace(" ", "\n") if grid.columns[0] == "arm" else column.replace(" mean", "\nmean").replace(" − ", "\n− ")
        table.add_column(Text(header), justify="left" if index < grid.labels else "right", style=style, no_wrap=True, vertical="bottom")
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
