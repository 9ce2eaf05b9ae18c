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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_resumable(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "pipeline", "run", str(TINY), f"workspace={tmp_path}", "--cpus", "2"]
    process = subprocess.Popen(command, cwd=TINY.parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 300
    while len(records(tmp_path)) < 2 and process.poll() is None and time.time() < deadline:
        time.sleep(0.2)
    assert process.poll() is None, process.communicate()[1][-3000:]
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 5, errors
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    assert len(records(tmp_path)) >= 2
    _, alive = psutil.wait_procs(below, timeout=90)
    assert not alive
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("select status from runs where name = 'tiny'").fetchall() == [("KILLED",)]
