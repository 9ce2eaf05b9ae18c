"""What of a report stands on the terminal: the few tables that a person needs at the end of a run. All of it is in the report's files."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.report.compare.models import Compare, Line
from pipeline.report.compare.tables import brief_grid, merge_measures_grid, rows_grid, sides_grid, tasks_grid
from pipeline.report.comparison import MANY, Arm, arms_of
from pipeline.report.orders import order_difference_grid, order_differences, orders_grid, orders_of
from pipeline.report.paired import PairedScores, paired_scores
from pipeline.report.paired_tables import arms_grid, merges_grid
from pipeline.report.run_scores import RunScores
from pipeline.report.tables import Grid, comparison_grid, difference_grid, print_grids, stage_grid, summary_grid

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from pipeline.compare import Comparisons

BRIEF = 4
"""From so many pairs of models on, a terminal shows their means in one table; the files hold every task."""


def print_tables(runs: Sequence[RunScores], console: "Console", scores: PairedScores | None = None) -> None:
    """Lay the runs' tables on the terminal, the figures that count last, and below them the result in a sentence.

    A single run: stage by stage, what its merges changed, its summary. Several: the arms compared, and their differences. `scores`: what
    differs on the same samples, found now where that is None.
    """
    from pipeline.report.page.headline import headline

    arms = arms_of(runs)
    found = paired_scores(runs) if scores is None else scores
    grids = [stage_grid(runs[0]), merges_grid(found), summary_grid(runs[0])] if len(runs) == 1 else several(arms, found)
    print_grids((grid for grid in grids if grid is not None), console)
    for note in found.notes:
        console.print(note, style="dim", highlight=False, markup=False)
    console.print(headline(arms), style="bold", highlight=False, markup=False)


def several(arms: Sequence[Arm], found: PairedScores) -> list[Grid | None]:
    """The tables of several runs: what the merges of an arm alone changed; of several arms what sets them apart."""
    orders = orders_of(arms)
    between = [difference_grid(arms) if len(arms) < MANY else None, arms_grid(found, arms)]
    over_orders = [orders_grid(orders), order_difference_grid(order_differences(orders))]
    return [merges_grid(found) if len(arms) == 1 else None, comparison_grid(arms, brief=len(arms) >= MANY), *between, *over_orders]


def print_comparisons(found: "Comparisons", console: "Console") -> None:
    """Lay a comparison on the terminal: settings that differ, each pair's tasks with what differs beyond its interval in bold, measures."""
    if len(found.runs) > 1:
        _print_settings(found, console)
    if len(found.merges) >= BRIEF:
        print_grids([brief_grid(found.merges)], console)
    else:
        for each in found.merges:
            _print_pair(each, console)
            print_grids([merge_measures_grid(each)], console)
    if len(found.models) >= BRIEF:
        print_grids([brief_grid(found.models), rows_grid(found.models)], console)
    elif found.models:
        for each in found.models:
            _print_pair(each, console)
        print_grids([sides_grid(found.models)], console)


def _print_settings(found: "Comparisons", console: "Console") -> None:
    """The settings that differ, long values in several lines."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not found.settings:
        console.print("no setting differs\n", style="dim")
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("settings that differ", *(run.label for run in found.runs)):
        table.add_column(Text(name), overflow="fold")
    for key, values in found.settings.items():
        table.add_row(*(Text(cell) for cell in (key, *values)))
    console.print(table)
    console.print()


def _print_pair(found: Compare, console: "Console") -> None:
    grid = tasks_grid(found)
    table = _pair_table(grid, list(zip(found.lines, grid.rows, strict=True)))
    if console.measure(table, options=console.options.update(max_width=10_000)).maximum > console.width:
        narrow = [name for name in grid.columns[1:] if name not in ("Holm p", "95 % of samples")]
        print_grids([grid.only(narrow)], console)
        return
    console.print(grid.title, style="bold", highlight=False, markup=False)
    console.print(table)
    console.print()
    for line in grid.note.splitlines():
        console.print(line, style="dim", highlight=False, markup=False)
    console.print()


def _pair_table(grid: Grid, shown: Sequence[tuple[Line, tuple[str, ...]]]) -> "Table":
    """Green for better, red for worse, bold with either: beyond every interval."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0))
    for index, column in enumerate(grid.columns):
        header = column.replace("95 % ", "95 %\n").replace("Holm p", "Holm\np")
        table.add_column(Text(header), justify="right" if index else "left", no_wrap=True, vertical="bottom")
    place = grid.columns.index("difference")
    for (line, row), (following, _) in zip(shown, [*shown[1:], shown[-1]], strict=True):
        style = "" if not line.beyond else "bold green" if line.difference > 0 else "bold red"
        cells = [Text(cell, style=style if index == place else "") for index, cell in enumerate(row)]
        table.add_row(*cells, end_section=line.of is not following.of)
    return table
