"""`doctor`: a table of what a run needs and whether it is there, on this machine or on every node of a cluster."""

from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from foundation.errors import ResourceError
from pipeline.command.terminal import say
from pipeline.config.inputs import check_address
from pipeline.doctor.examine import MAKER, examine, probe_directory
from pipeline.doctor.findings import Finding, State
from pipeline.doctor.network import dashboard, mlflow
from pipeline.doctor.nodes import Here, on_cluster
from pipeline.doctor.probe import Examiner
from pipeline.objects.bucket import open_bucket

SECOND = "another process"
"""Of this machine, against which locks are tried."""


def show_findings(
    address: str | None, workspace: Path, tracking: str | None, needed: float, fix: bool, console: Console, objects: str | None = None
) -> None:
    """Examine and print; ResourceError if there is a problem. Without an address: this machine, and no Ray."""
    uri = None if objects is None else open_bucket(objects).uri
    findings = on_this_machine(workspace, needed, fix, uri) if address is None else on_all_nodes(address, workspace, needed, fix, uri)
    findings.append(mlflow(tracking, workspace))
    print_findings(findings, console)
    problems = [finding.check for finding in findings if finding.state is State.PROBLEM]
    if problems:
        raise ResourceError(f"{len(problems)} of {len(findings)} checks found a problem: {', '.join(problems)}; mend them and ask again")
    where = ("" if address is None else f" --address {address} workspace={workspace}") + ("" if uri is None else f" objects={uri}")
    say(console, f"next: python -m pipeline run FILE{where}")


def on_this_machine(workspace: Path, needed: float, fix: bool, uri: str | None = None) -> list[Finding]:
    with probe_directory(workspace) as place:
        nodes = Here({name: Examiner(name, str(workspace), str(place)) for name in (MAKER, SECOND)})
        return examine(nodes, workspace, needed, {}, fix, uri)


def on_all_nodes(address: str, workspace: Path, needed: float, fix: bool, uri: str | None = None) -> list[Finding]:
    with ExitStack() as stack:
        told = connect(address, stack)
        place = stack.enter_context(probe_directory(workspace))
        nodes = stack.enter_context(on_cluster(workspace, place))
        return [*examine(nodes, workspace, needed, nodes.resources, fix, uri), dashboard(told)]


def connect(address: str, stack: ExitStack) -> str:
    """Connected as long as the stack lasts; the dashboard's host:port. ResourceError where the cluster does not let this machine in."""
    import ray

    from pipeline.graph.cluster import connected

    if address == "auto":
        address = running_here()
    try:
        stack.enter_context(connected(address))
    except (ResourceError, ray.exceptions.AuthenticationError, RuntimeError) as error:  # the last for other versions of Python or Ray
        raise ResourceError(
            f"the cluster at {address} does not let this machine in: it needs the cluster's token, RAY_AUTH_MODE=token, and the same "
            f"versions of Python and Ray. Ray says: {str(error).strip().splitlines()[0]}"
        ) from error
    return str(ray.init(ignore_reinit_error=True, logging_level="error").dashboard_url or "")


def running_here() -> str:
    """The address that Ray takes `auto` for; ResourceError at once where none is found, or it is dead: Ray itself would try for minutes."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = str(canonicalize_bootstrap_address("auto"))
    except ConnectionError as error:
        raise ResourceError(
            "no Ray runs on this machine; start it, give --address host:port, or leave it out to check this machine"
        ) from error
    check_address(found)
    return found


def print_findings(findings: list[Finding], console: Console) -> None:
    """A line each; what to do below those with a problem."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("check", "", "seen"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        bad = finding.state is State.PROBLEM
        seen = Text(finding.seen)
        if bad:
            seen.append(f"\n→ {finding.remedy}", style="bold")
        table.add_row(finding.check, Text(finding.state, style="bold red" if bad else "green"), seen)
    console.print(table)
