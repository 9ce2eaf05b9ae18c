"""One run as jobs of a Ray cluster: `submit` and Ray's own command by turns, on a head on loopback with token authentication.

The tests tell one story, in order: the run is joined and stopped, goes on, and is there already.
"""

import json
import os
import secrets
import shutil
import signal
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

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("jobs")]  # in one worker, in their order

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


def mergeline(head: tuple[str, dict[str, str]], *arguments: str, **changed: str) -> subprocess.Popen[str]:
    """`submit` of the tiny run with one stage, started."""
    address, environment = head
    command = [sys.executable, "-m", "pipeline", "submit", str(TINY), "tasks=[parity]", "--address", address, "--python", sys.executable]
    return subprocess.Popen(
        [*command, *arguments, "tracking.wait=2"],  # where there is no MLflow, it is not waited for
        env={**environment, **changed},
        cwd=TINY.parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=300)[0]


def asked(head: tuple[str, dict[str, str]], path: str) -> str:
    """What the job server answers to whoever has the token."""
    address, environment = head
    request = urllib.request.Request(f"{address}{path}", headers={"Authorization": f"Bearer {environment['RAY_AUTH_TOKEN']}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


SECRET = "hunter2-hunter2"


def test_a_submitted_run_is_joined_left_and_stopped_cleanly(head: tuple[str, dict[str, str]], workspace: Path) -> None:
    secrets_here = {"MLFLOW_TRACKING_URI": f"http://ann:{SECRET}@127.0.0.1:1", "HF_TOKEN": SECRET}
    at_once = [mergeline(head, f"workspace={workspace}", "--no-wait", **secrets_here) for _ in range(2)]  # two people, one job
    submitted = "".join(said(each) for each in at_once)
    assert [each.returncode for each in at_once] == [0, 0], submitted
    assert submitted.count("submitted tiny-") == 1, submitted
    joined, left = (mergeline(head, f"workspace={workspace}", **secrets_here) for _ in range(2))
    assert left.stdout is not None
    assert any("runs already (" in line for line in left.stdout)  # it follows from here on
    deadline = time.time() + 120
    while not records(workspace) and joined.poll() is None and time.time() < deadline:
        time.sleep(0.2)
    assert joined.poll() is None, said(joined)
    left.send_signal(signal.SIGINT)
    assert f"runs on.\nfollow: python -m pipeline submit {TINY}" in (told := said(left)), told
    stopped = mergeline(head, f"workspace={workspace}", "--stop")
    assert "stopped cleanly" in (told := said(stopped)), told
    followed = said(joined)
    assert (left.returncode, stopped.returncode, joined.returncode) == (5, 5, 5)
    assert "runs already (" in followed
    assert followed.count("error: stopped by SIGTERM") == 1
    assert f"next: python -m pipeline submit {TINY} 'tasks=[parity]' workspace={workspace}" in followed
    (job,) = json.loads(asked(head, "/api/jobs/"))
    assert job["status"] == "STOPPED"
    assert SECRET not in json.dumps(job) + asked(head, f"/api/jobs/{job['submission_id']}") + submitted + followed
    assert set(job["runtime_env"]["env_vars"]) == {"MERGELINE_COMMIT", "RAY_JOB_STOP_WAIT_TIME_S", "RAY_OVERRIDE_JOB_RUNTIME_ENV"}


def test_rays_own_command_goes_on_with_it(head: tuple[str, dict[str, str]], workspace: Path) -> None:
    kept = records(workspace)
    address, environment = head
    command = [RAY, "job", "submit", "--address", address, "--working-dir", ".", "--", sys.executable, "-m", "pipeline", "run", TINY]
    command += ["tasks=[parity]", f"workspace={workspace}"]
    done = subprocess.run(command, env=environment, cwd=TINY.parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert f"{6 - len(kept)} of 6 steps to run" in done.stdout
    assert len(records(workspace)) == 6
    assert kept.items() <= records(workspace).items()


def test_submitted_again_it_is_a_new_attempt_that_finds_all_done(head: tuple[str, dict[str, str]], workspace: Path) -> None:
    again = mergeline(head, f"workspace={workspace}")
    told = said(again)
    assert again.returncode == 0, told
    assert "-2 to http" in told, told
    assert "0 of 6 steps to run" in told, told
    shown = said(mergeline(head, f"workspace={workspace}", "--status"))
    assert [line.split()[1].rstrip(",") for line in shown.splitlines()[:2]] == ["STOPPED", "SUCCEEDED"], shown
    refused = mergeline(head, f"workspace={workspace}", "--stop")
    assert "no job of this experiment runs" in said(refused)
    assert refused.returncode == 2


def test_the_drivers_exit_code_is_that_of_submit(head: tuple[str, dict[str, str]], workspace: Path) -> None:
    lacking = mergeline(head, f"workspace={workspace}", "name=lacking", "base=/only/on/the/nodes")
    told = said(lacking)
    assert lacking.returncode == 3, told
    assert "the nodes must have /only/on/the/nodes; it is not on this machine" in told
    assert "ended with exit code 3" in told


@pytest.mark.parametrize("token", ["", "0" * 32])
def test_without_the_clusters_token_nothing_is_submitted(head: tuple[str, dict[str, str]], tmp_path: Path, token: str) -> None:
    changed = {"RAY_AUTH_TOKEN": token, "HOME": str(tmp_path)}
    started = time.monotonic()
    refused = mergeline(head, f"workspace={tmp_path}", "name=refused", **changed)
    told = said(refused)
    assert refused.returncode == 4, told
    assert "copy the head's ~/.ray/auth_token" in told
    assert "Traceback" not in told
    assert time.monotonic() - started < 30
