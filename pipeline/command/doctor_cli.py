"""The command line of `doctor`."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

GIGABYTE = 1e9


def doctor(
    address: Annotated[
        str | None, typer.Option(help="Examine all nodes of this Ray cluster (else RAY_ADDRESS; else this machine).")
    ] = None,
    workspace: Annotated[Path, typer.Option(help="Where store and runs will lie.")] = Path(),
    objects: Annotated[
        str | None, typer.Option(help="Nodes share this object store (s3://, gs:// or az://) instead of the workspace.")
    ] = None,
    tracking: Annotated[str | None, typer.Option(help="The MLflow to ask (default: as a run chooses it).")] = None,
    need: Annotated[float, typer.Option(help="Gigabytes that should be free in the workspace.", min=0)] = 1.0,
    fix: Annotated[bool, typer.Option("--fix", help="Take token files that others can read from them (chmod 600).")] = False,
) -> None:
    """Check that this machine, or every node of a cluster, has what a run needs; exit code 4 if not."""
    from pipeline.command.doctor import show_findings
    from pipeline.config.inputs import check_address

    where = address or os.environ.get("RAY_ADDRESS") or None
    if where is not None:
        check_address(where)
    show_findings(None if where == "local" else where, workspace.absolute(), tracking, need * GIGABYTE, fix, Console(), objects)
