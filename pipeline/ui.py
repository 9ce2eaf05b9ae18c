"""`ui`: MLflow's pages over the workspace's database, on loopback, with telemetry off."""

import os
import subprocess
import sys
from pathlib import Path

from foundation.errors import InputError
from pipeline.tracking.book import QUIET, sqlite_file, tracking_uri


def serve(workspace: Path, port: int) -> int:
    """Run MLflow's server until it is stopped; its exit code."""
    uri = tracking_uri(None, workspace)
    database = sqlite_file(uri)
    if database is None:
        print(f"MLflow's pages are served by the tracking server itself: {uri}")
        return 0
    if not database.exists():
        raise InputError(f"there is no {database} yet; run an experiment first, or name its workspace with --workspace")
    environment = {**os.environ, **QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        uri,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    print(f"MLflow on http://127.0.0.1:{port}/?workflowType=machine_learning (Ctrl-C ends it)", flush=True)
    try:
        return subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0
