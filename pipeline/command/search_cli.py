"""The command line of `search`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def search(
    file: Annotated[Path, typer.Argument(help="The experiment's YAML file.", show_default=False)],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value pairs laid over the file.", show_default=False)] = None,
    stage: Annotated[int, typer.Option(help="The stage whose merge is searched: 1, 2, ...", min=1)] = 1,
    method: Annotated[str | None, typer.Option(help="The merge method (default wise_ft), or several: ties,slerp.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=...", help="What is tried: NAME=LOW:HIGH or NAME=A,B,C; NAME=VALUE sets it."),
    ] = None,
    low: Annotated[float | None, typer.Option(help="The least alpha (default 0).")] = None,
    high: Annotated[float | None, typer.Option(help="The largest alpha (default 1).")] = None,
    points: Annotated[int | None, typer.Option(help="Points of the grid (default 11).")] = None,
    trials: Annotated[int | None, typer.Option(help="Points to try where they are not a grid's (default 11).")] = None,
    algorithm: Annotated[str | None, typer.Option(help="grid, random or optuna (default grid).")] = None,
    goal: Annotated[str | None, typer.Option(help="average, stream, held_out, new or balanced (default average).")] = None,
    samples: Annotated[int | None, typer.Option(help="Validation questions of each task (default 200).")] = None,
    depth: Annotated[int | None, typer.Option(help="Alphas spread over the depth of the model (default 1).")] = None,
    workers: Annotated[int | None, typer.Option(help="Trials side by side (default 1).")] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster; else RAY_ADDRESS, else Ray starts here.")] = None,
    cpus: Annotated[int | None, typer.Option(help="Processors of the Ray that starts here (default: all).", min=1)] = None,
) -> None:
    """Search one stage's merge (alpha, or any parameters) on validation questions; trains nothing that is stored, writes no trial."""
    from pipeline.command.search import merge_settings, search_settings, search_stage

    given = {"low": low, "high": high, "points": points, "trials": trials, "algorithm": algorithm, "goal": goal}
    settings = search_settings({**given, "samples": samples, "depth": depth, "workers": workers})
    search_stage(file, overrides or [], stage, settings, merge_settings(method, parameter or []), Console(), address, cpus)
