"""`ui`: on loopback, over the workspace's database, and gone when it is told to go."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from free_ports import free_port

from foundation.errors import InputError, ResourceError
from foundation.files import write_json_atomic
from pipeline.command.ui import serve
from pipeline.tracking.backend import open_client

REPOSITORY = Path(__file__).parents[2]


def test_a_workspace_without_a_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no .*mlflow\.db yet; run an experiment first, or name its workspace"):
        serve(tmp_path, free_port())
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=rf"port {port} on 127\.0\.0\.1 cannot be used .*choose another with --port"):
            serve(tmp_path, port)


def test_a_tracking_server_shows_its_own_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example/")
    assert serve(tmp_path, free_port()) == 0
    assert "https://mlflow.example/#/experiments" in capsys.readouterr().out


def _in_group(group: int) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in listed if line.split()[0] == str(group) and not line.split()[1].startswith("Z")]


def _child_of(parent: int) -> int:
    listed = subprocess.run(["ps", "-eo", "ppid=,pid="], capture_output=True, text=True, check=True).stdout.splitlines()
    return next(int(line.split()[1]) for line in listed if line.split()[0] == str(parent))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ps") is None, reason="looks for processes left behind")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_while_the_database_is_written_and_leaves_no_process(tmp_path: Path, ending: signal.Signals) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = open_client(uri)
    experiment = client.create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri())
    told = {"uri": uri, "experiment": experiment, "compared": ["a", "b"], "tracks": [], "pipeline_run": "p", "identity": "i"}
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    write_json_atomic(tmp_path / "runs" / "mine" / "tracking.json", told)
    port = free_port()
    command = [sys.executable, "-m", "pipeline", "ui", "--workspace", str(tmp_path), "--port", str(port)]
    with open(tmp_path / "out.txt", "w") as out:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
    try:
        deadline = time.time() + 240
        while "Ctrl-C ends it" not in (tmp_path / "out.txt").read_text() and time.time() < deadline and process.poll() is None:
            time.sleep(0.2)
        text = (tmp_path / "out.txt").read_text()
        assert f"http://127.0.0.1:{port}/#/experiments" in text
        assert "mine" in text
        assert f"http://127.0.0.1:{port}/#/compare-runs" in text
        group = _child_of(process.pid)
        assert _in_group(group)
        run = client.create_run(experiment, run_name="made meanwhile")
        for step in range(20):
            client.log_metric(run.info.run_id, "acc/average", step / 20, step=step)
        place = f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/get?run_id={run.info.run_id}"
        assert b"made meanwhile" in urllib.request.urlopen(place, timeout=120).read()
        process.send_signal(ending)
        assert process.wait(120) == 0
        assert not _in_group(group)
    finally:
        process.kill()
