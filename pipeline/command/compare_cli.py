"""The command line of `compare`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def compare(
    runs: Annotated[list[str], typer.Argument(help="Runs, by name or directory.", show_default=False)],
    workspace: Annotated[Path, typer.Option(help="Where store and runs lie.")] = Path(),
    stage: Annotated[int | None, typer.Option(help="Compare after this stage (default: the last that is done).")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the tables here too: CSV, Markdown and a picture.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON and nothing else.")] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open MLflow's compare page in the browser; starts nothing else.")] = False,
) -> None:
    """Compare a run before and after its merges, or several runs with the first: differences, intervals, settings, MLflow's pages."""
    from pipeline.command.compare import Shown, show_comparison
    from pipeline.config.inputs import check_place

    if output is not None:
        check_place(output.absolute(), "--output")
    show_comparison(runs, workspace, stage, Shown(output, json, open_page), Console())
