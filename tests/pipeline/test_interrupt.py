"""Ctrl-C and SIGTERM: exit code 5, everything finished is kept, and no process stays behind."""

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tiny_run import TINY, records

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_a_signal_ends_the_run_resumable(tmp_path: Path, database: Path) -> None:
    """SIGTERM, and SIGINT when the same command goes on."""
    interrupted(tmp_path, signal.SIGTERM, 2)
    interrupted(tmp_path, signal.SIGINT, len(records(tmp_path)) + 1)


def interrupted(workspace: Path, number: signal.Signals, steps: int) -> None:
    """Run the tiny experiment and send the signal once so many steps are stored."""
    command = [sys.executable, "-m", "pipeline", "run", str(TINY), f"workspace={workspace}", "--cpus", "2"]
    process = subprocess.Popen(command, cwd=TINY.parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 300
    while len(records(workspace)) < steps and process.poll() is None and time.time() < deadline:
        time.sleep(0.2)
    assert process.poll() is None, process.communicate()[1][-3000:]
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 5, errors
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    assert len(records(workspace)) >= steps
    _, alive = psutil.wait_procs(below, timeout=90)
    assert not alive
    with sqlite3.connect(workspace / "mlflow.db") as connection:
        assert connection.execute("select status from runs where name = 'tiny'").fetchall() == [("KILLED",)]
