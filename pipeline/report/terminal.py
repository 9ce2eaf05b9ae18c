"""What of a report stands on the terminal: the few tables that a person needs at the end of a run. All of it is in the report's files."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.report.comparison import MANY, Arm, arms_of
from pipeline.report.orders import order_difference_grid, order_differences, orders_grid, orders_of
from pipeline.report.paired import PairedScores, paired_scores
from pipeline.report.paired_tables import arms_grid, merges_grid
from pipeline.report.run_scores import RunScores
from pipeline.report.tables import Grid, comparison_grid, difference_grid, print_grids, stage_grid, summary_grid

if TYPE_CHECKING:
    from rich.console import Console


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
