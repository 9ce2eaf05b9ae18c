"""What `analyze` shows on a terminal: how far it is, and its tables. Light to import."""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from pipeline.command.terminal import say

if TYPE_CHECKING:
    from evaluators.analysis.layer_contributions import LayerContributions
    from evaluators.analysis.number_bias import NumberBias

GAP = 2
"""Spaces between columns."""


class Asking:
    """How many of `total` samples have been asked: a bar on a terminal, elsewhere a line per model. A context manager."""

    def __init__(self, console: Console, total: int) -> None:
        self.console = console
        self.bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=total)
        self.done = 0

    def __enter__(self) -> "Asking":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def begin(self, note: str) -> Callable[[int], None]:
        """Say what is asked now; gives what is to hear how many samples of it are done."""
        begun = self.done
        self.bar.update(self.task, description=escape(note))
        if not self.console.is_terminal:
            say(self.console, f"asking {note}")

        def heard(done: int) -> None:
            self.done = begun + done
            self.bar.update(self.task, completed=self.done)

        return heard


def show_numbers(found: "Mapping[str, Mapping[str, NumberBias]]", console: Console) -> None:
    """A table per task: statistic by checkpoint."""
    from evaluators.analysis.number_bias import NAMES

    for task in next(iter(found.values())):
        count = len(next(iter(found.values()))[task].samples)
        console.print(f"[bold]{escape(task)}[/bold]: mean ± standard deviation over {count} samples", highlight=False)
        cells = {
            name: [f"{getattr(probes[task].mean, each):.4g} ± {getattr(probes[task].deviation, each):.3g}" for each in NAMES]
            for name, probes in found.items()
        }
        print_columns("statistic", NAMES, cells, console)


def show_layers(found: "Mapping[str, LayerContributions]", console: Console) -> None:
    """Layer by checkpoint: attention / MLP."""
    first = next(iter(found.values()))
    console.print(
        f"[bold]change of contribution, logit distance[/bold]: attention / mlp, mean over {first.samples} samples ({first.tokens} tokens)",
        highlight=False,
    )
    rows = [*(f"layer {layer}" for layer in range(len(first.mlp))), "mean"]
    cells = {}
    for name, each in found.items():
        curves = [(*curve, sum(curve) / len(curve)) for curve in (each.attention, each.mlp)]
        cells[name] = [f"{attention:.4g} / {mlp:.4g}" for attention, mlp in zip(*curves, strict=True)]
    print_columns("layer", rows, cells, console)


def print_columns(first: str, rows: Sequence[str], cells: Mapping[str, Sequence[str]], console: Console) -> None:
    """A column per checkpoint, in as many tables as the console's width asks for; nothing is cut off."""
    for names in folded(first, rows, cells, console.width):
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        table.add_column(first, no_wrap=True)
        for name in names:
            table.add_column(escape(name), justify="right", overflow="fold")
        for place, row in enumerate(rows):
            table.add_row(row, *(cells[name][place] for name in names))
        console.print(table)


def folded(first: str, rows: Sequence[str], cells: Mapping[str, Sequence[str]], width: int) -> list[list[str]]:
    """The names of the columns, as many together as fit beside the first column; at least one."""
    own = max(map(len, (first, *rows)))
    tables: list[list[str]] = []
    taken = width
    for name, texts in cells.items():
        wide = GAP + max(map(len, (name, *texts)))
        if taken + wide > width:
            tables.append([])
            taken = own
        tables[-1].append(name)
        taken += wide
    return tables
