"""`ui`: MLflow's pages over the workspace's database, on loopback, with telemetry off. It may run while an experiment runs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from foundation.errors import InputError, ResourceError
from pipeline.tracking.backend import QUIET, SERVERS, sqlite_file, tracking_uri, without_secrets
from pipeline.tracking.links import compare_runs, experiments_page, view_page
from pipeline.tracking.views import CURVES_VIEW, STAGES_VIEW

HOST = "127.0.0.1"
SECONDS_TO_END = 10
NEWEST = 3


def serve(workspace: Path, port: int) -> int:
    """Run MLflow's server until it is stopped; its exit code. InputError without a database, ResourceError if the port is taken."""
    uri = tracking_uri(None, workspace)
    if uri.startswith(SERVERS):
        print(f"MLflow's pages are served by the tracking server itself: {experiments_page(without_secrets(uri).rstrip('/'))}")
        return 0
    database = sqlite_file(uri)
    if database is not None and not database.exists():
        raise InputError(f"there is no {database} yet; run an experiment first, or name its workspace with --workspace")
    _check_port(port)
    print(f"starting MLflow on http://{HOST}:{port} (this takes a while) ...", flush=True)
    with _ended_by_signals():
        server = subprocess.Popen(_command(port), env=_environment(uri), start_new_session=True)
        try:
            if _answers(server, port):
                print("\n".join(_welcome(workspace, uri, f"http://{HOST}:{port}")), flush=True)
            return server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _end(server)


def _command(port: int) -> list[str]:
    place = ["--host", HOST, "--port", str(port)]
    return [sys.executable, "-m", "mlflow", "server", *place, "--workers", "1", "--uvicorn-opts", "--log-level warning"]


def _environment(uri: str) -> dict[str, str]:
    """With the database's address, which everybody on the machine could read in a command."""
    ours = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore", "MLFLOW_BACKEND_STORE_URI": uri}
    return {**os.environ, **QUIET, **ours}


def _check_port(port: int) -> None:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise ResourceError(
                f"port {port} on {HOST} cannot be used ({error.strerror}); stop what listens there, or choose another with --port"
            ) from error


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server takes connections; False if it ended before that."""
    while server.poll() is None:
        with socket.socket() as tried:
            if tried.connect_ex((HOST, port)) == 0:
                return True
        time.sleep(0.2)
    return False


def _welcome(workspace: Path, uri: str, base: str) -> list[str]:
    """The addresses worth opening: all experiments, and the newest runs of this workspace."""
    lines = [f"MLflow       {experiments_page(base)}"]
    markers = sorted(workspace.glob("runs/*/tracking.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for marker in markers[:NEWEST]:
        told = json.loads(marker.read_text())
        if told["uri"] == without_secrets(uri):
            lines += [f"{marker.parent.name}", f"  compare    {compare_runs(base, [told['experiment']], told['compared'])}"]
            lines += [f"  stages     {view_page(base, told['experiment'], STAGES_VIEW)}"]
            lines += [f"  curves     {view_page(base, told['experiment'], CURVES_VIEW, charts=True)}"]
    return [*lines, "Ctrl-C ends it"]


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end it as Ctrl-C does, so that the server never stays behind."""

    def stop(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and all that it started: they are a process group of their own."""
    for number, seconds in ((signal.SIGTERM, SECONDS_TO_END), (signal.SIGKILL, SECONDS_TO_END)):
        try:
            os.killpg(server.pid, number)
            server.wait(seconds)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
