"""The command line of `submit`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from foundation.errors import ConfigError


def submit(
    file: Annotated[Path, typer.Argument(help="The experiment's YAML file.", show_default=False)],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value pairs laid over the file.", show_default=False)] = None,
    address: Annotated[
        str | None, typer.Option(help="The cluster's job server; else RAY_API_SERVER_ADDRESS, else http://127.0.0.1:8265.")
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Stop it cleanly where it runs; submit it again to go on.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show its attempts, and start nothing.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow its log.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be sent; ask no server.")] = False,
    python: Annotated[str, typer.Option(help="The interpreter on the cluster's nodes.")] = "python",
) -> None:
    """Run an experiment on a Ray cluster as a job, and follow it; submit it again to follow or to go on."""
    asked = [name for name, given in (("--stop", stop), ("--status", status), ("--dry-run", dry_run)) if given]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} are different things; choose one")
    from pipeline.command.submit import Submission, show_plan, show_request, show_status, stop_job, submit_job
    from pipeline.jobs.package import package
    from pipeline.jobs.request import read_request
    from pipeline.jobs.server import address_of, connect

    url, console = address_of(address), Console()
    request = read_request(file, overrides or [])
    if not stop and not status:
        show_request(request, console)
        packed = package(request)
        if dry_run:
            show_plan(request, packed, python, url, console)
            return
    client, notes = connect(url)
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    job = Submission(request, client, url, console, python)
    if status:
        show_status(job)
        return
    raise typer.Exit(stop_job(job) if stop else submit_job(job, python, not no_wait))
