"""The command line of `lineage`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def lineage(
    model: Annotated[str, typer.Argument(help="A checkpoint's directory (or a copy), a step's key, or sha256:…", show_default=False)],
    workspace: Annotated[Path, typer.Option(help="Where the store lies.")] = Path(),
    tracking: Annotated[str | None, typer.Option(help="Ask this MLflow alone (http://…, sqlite:///…), without a store.")] = None,
    down: Annotated[bool, typer.Option("--down", help="What came of the model, not where it comes from.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw it too, as a PNG.")] = None,
) -> None:
    """Show where a checkpoint comes from: methods, weights, data, seeds and code, down to the base; or what came of it."""
    from pipeline.command.lineage import show_lineage

    show_lineage(model, workspace, tracking, down, picture, Console())
