"""MLflow's server on loopback for the benchmark of tracking, with one worker, ended with all that it starts."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HOST = "127.0.0.1"
SECONDS_TO_START, SECONDS_TO_END = 120, 20
SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}


@contextmanager
def tracking_server(room: Path, database: str, port: int = 0) -> Iterator[str]:
    """The address of a server over `database`, its artifacts and its log in `room`. RuntimeError with its last words if it fails.

    `port` 0: one that is free by now.
    """
    room.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind((HOST, port))
        port = free.getsockname()[1]
    options = ["--backend-store-uri", database, "--artifacts-destination", str(room / "artifacts"), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), *options]
    with open(room / "log", "w") as log:
        process = subprocess.Popen(command, cwd=room, env=os.environ | SETTINGS, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(f"http://{HOST}:{port}", process, room / "log")
        yield f"http://{HOST}:{port}"
    finally:
        _end(process)


def _wait(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(f"{uri}/health", timeout=5).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"MLflow's server does not answer (exit code {process.poll()}):\n{log.read_text()[-3000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server and its worker are a process group of their own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(SECONDS_TO_END)
            return
