"""The command line of `sync`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def sync(
    runs: Annotated[list[str], typer.Argument(help="Runs, by name or directory.", show_default=False)],
    workspace: Annotated[Path, typer.Option(help="Where store and runs lie.")] = Path(),
    tracking: Annotated[str | None, typer.Option(help="Write to this MLflow (http://…, sqlite:///…) in place of the runs' own.")] = None,
    wait: Annotated[float, typer.Option(help="Seconds without an answer after which it is given up.", min=0)] = 60,
) -> None:
    """Bring MLflow up to date from what the runs left on disk: a new, emptied or lagging one, after an outage. Nothing is doubled."""
    from pipeline.command.sync import sync_runs

    sync_runs(runs, workspace, tracking, wait, Console())
