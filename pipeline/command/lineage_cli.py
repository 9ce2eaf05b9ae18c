"""The command line of `lineage`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

MODEL = "A checkpoint's directory (or a copy), a step's key, sha256:…, a run's name, MLflow's m-…, run id or models:/NAME@latest-merged."


def lineage(
    model: Annotated[str, typer.Argument(help=MODEL, show_default=False)] = "",
    workspace: Annotated[Path, typer.Option(help="Where the store lies.")] = Path(),
    tracking: Annotated[str | None, typer.Option(help="Ask this MLflow alone (http://…, sqlite:///…), without a store.")] = None,
    down: Annotated[
        bool, typer.Option("--down", help="What came of the model (or of the data set of that name), not where it is from.")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="A data set, by name or digest: every model that learned from it, and what came of those.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw it too, as a PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show where a checkpoint comes from: methods, weights, data, seeds and code, down to the base; or what came of it or of a data set."""
    from pipeline.command.lineage import Asked, show_lineage

    show_lineage(Asked(model, workspace, tracking, down, data), picture, as_json, Console())
