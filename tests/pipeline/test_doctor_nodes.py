"""`doctor` over Ray: an actor on every node of a cluster of two nodes on this machine, which starts for this test, with a token."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from objects_server import SECRET, Objects, objects_server

__all__ = ["objects_server"]
pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(240)]

REPOSITORY = Path(__file__).parents[2]
SECONDS = 120
TWO_NODES = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster()
for number in range(2):  # the first is the head
    cluster.add_node(num_cpus=1, num_gpus=number, object_store_memory=80_000_000, include_dashboard=False)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory whose path is short: Ray puts sockets below it."""
    made = Path(tempfile.mkdtemp(prefix="ml-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def environment(place: Path, objects_server: Objects) -> dict[str, str]:
    """A temporary directory and a token file of their own, readable by everybody, and the way to an object store."""
    token = place / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o644)
    own = {"TMPDIR": str(place), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    others = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    return {**others, **own, **objects_server.environment}


@pytest.fixture(scope="module")
def address(environment: dict[str, str]) -> Iterator[str]:
    """Of a cluster whose second node says that it has a GPU."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", TWO_NODES], env=environment, text=True, start_new_session=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
            process.stdin.close()
            process.wait(SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def doctor(environment: dict[str, str], address: str, workspace: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "doctor", "--address", address, "--workspace", str(workspace), *options]
    wide = {**environment, "COLUMNS": "300", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, env=wide, cwd=REPOSITORY, capture_output=True, text=True, timeout=SECONDS)


def test_both_nodes_are_examined_and_their_faults_named(environment: dict[str, str], address: str, place: Path, tmp_path: Path) -> None:
    assert address, "the cluster did not start"
    done = doctor(environment, address, tmp_path)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "2 answer" in done.stdout
    assert "each of 2 nodes reads what each wrote" in done.stdout
    assert "refused while another holds it" in done.stdout
    assert "has mode 0644" in done.stdout
    assert "Ray counts 1, torch sees 0" in done.stdout
    assert "2 of 15 checks found a problem: GPUs, token file" in done.stderr
    assert (place / "token").read_text() not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []  # what was probed with is gone


def test_both_nodes_use_an_object_store(
    environment: dict[str, str], address: str, place: Path, objects_server: Objects, tmp_path: Path
) -> None:
    uri = objects_server.uri()
    done = doctor(environment, address, tmp_path / "own", "--objects", uri)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "refused where they must be; one of 2 won" in done.stdout
    assert "each of 2 reads and lists what each wrote" in done.stdout
    assert "2 of 16 checks found a problem: GPUs, token file" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_the_token_nobody_is_let_in(environment: dict[str, str], address: str, place: Path, tmp_path: Path) -> None:
    done = doctor({**environment, "RAY_AUTH_TOKEN_PATH": str(place / "none")}, address, tmp_path)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "does not let this machine in: it needs the cluster's token" in done.stderr
