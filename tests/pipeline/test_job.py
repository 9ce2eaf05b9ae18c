"""The same run as a Ray job: a head on loopback with token authentication, `ray job submit`, and what a job must refuse."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from free_ports import free_port
from tiny_run import TINY, records

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

RAY = Path(sys.executable).with_name("ray")


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[str, dict[str, str]]]:
    """The address of a head's dashboard, and the environment that talks to it."""
    dashboard = free_port()
    temporary = Path(tempfile.mkdtemp(prefix="ml-"))  # short: Ray puts sockets below it, whose paths may not be long
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    command = [RAY, "start", "--head", "--block", "--port", str(free_port()), "--dashboard-host", "127.0.0.1", "--num-cpus", "2"]
    command += ["--dashboard-port", str(dashboard), "--temp-dir", temporary, "--disable-usage-stats"]
    command += ["--dashboard-agent-listen-port", str(free_port())]  # the default may belong to another Ray of this machine
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for(address)
        yield address, environment
    finally:
        tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for member in tree:
            with suppress(psutil.NoSuchProcess):  # it has ended with one before it
                member.terminate()
        _, alive = psutil.wait_procs(tree, timeout=3)
        for member in alive:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        shutil.rmtree(temporary, ignore_errors=True)


def wait_for(address: str) -> None:
    """Until the job server asks for the token."""
    deadline = time.time() + 120
    while time.time() < deadline:
        try:
            urllib.request.urlopen(f"{address}/api/jobs/", timeout=2)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise AssertionError(f"a request without the token was answered {error.code}, not 401") from error
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the head did not come up")


def submit(head: tuple[str, dict[str, str]], *arguments: str) -> subprocess.CompletedProcess:
    address, environment = head
    command = [RAY, "job", "submit", "--address", address, "--working-dir", ".", "--", sys.executable, "-m", "pipeline", *arguments]
    deadline = time.time() + 90
    while True:
        done = subprocess.run(command, env=environment, cwd=TINY.parents[2], capture_output=True, text=True, timeout=400)
        if "No available agent" not in done.stderr or time.time() > deadline:  # the head answers before its agent does
            return done
        time.sleep(2)


def test_a_job_runs_the_experiment_and_its_exit_says_so(head: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    done = submit(head, "run", str(TINY), f"workspace={tmp_path}", "tasks=[parity]", "name=job")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "6/6" in done.stdout
    assert len(records(tmp_path)) == 6
    assert not Path("store").exists() or not (Path("store") / next(iter(records(tmp_path)))).exists()


def test_a_relative_workspace_is_refused_inside_a_job(head: tuple[str, dict[str, str]]) -> None:
    refused = submit(head, "run", str(TINY))
    assert refused.returncode == 1  # the job server's own exit code for any failure
    assert "add workspace=/path/that/all/nodes/share" in refused.stdout + refused.stderr
    assert "exit code 2" in refused.stdout + refused.stderr
