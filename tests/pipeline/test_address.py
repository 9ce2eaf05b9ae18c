"""`--address`: what is no Ray cluster, or one that does not fit, is told in seconds, and so is a head that is killed for good.

Ray itself tries an address where nobody answers for minutes.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from commands import EXPERIMENT, Command, ended
from free_ports import free_port
from tiny_run import TINY

from foundation.errors import ResourceError
from pipeline.graph import address as addresses
from pipeline.graph.address import check_cluster, check_versions

RAY = Path(sys.executable).with_name("ray")
SECONDS = 60
"""The promise is 15, whatever the address; a busy machine may take longer, and Ray itself tries for minutes."""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", lambda: set())  # other tests' Rays are not to be found
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # nor the one that they may share in this process
    (tmp_path / "small.yaml").write_text(EXPERIMENT)
    return lambda *arguments: ended(capsys, *arguments)


class NotRay(BaseHTTPRequestHandler):
    """Some web server."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def refused(command: Command, address: str, says: str) -> None:
    """`run` at this address ends with 4 and this in one line, in time, and has made nothing."""
    began = time.monotonic()
    told = command("run", "small.yaml", "workspace=space", "--address", address)
    assert (told.code, told.out) == (4, "")
    assert says in told.err
    assert len(told.err.splitlines()) == 1
    assert time.monotonic() - began < SECONDS
    assert not Path("space").exists()


def test_what_is_no_cluster_is_told_in_seconds(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "START_SECONDS", 0.2)
    monkeypatch.setattr(addresses, "ASK_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadingHTTPServer(("127.0.0.1", 0), NotRay) as web:
        threading.Thread(target=web.serve_forever, args=(0.05,), daemon=True).start()
        for start in ("", "ray://"):
            refused(command, f"{start}127.0.0.1:{free_port()}", "no Ray cluster answers at")
            refused(command, f"{start}127.0.0.1:{silent.getsockname()[1]}", "does not answer within 0 s: the head hangs, or a tunnel leads")
            refused(command, f"{start}127.0.0.1:{web.server_port}", "but it is not the head of a Ray cluster")
        web.shutdown()
    began = time.monotonic()
    refused(command, "head.invalid:6379", "no Ray cluster answers at head.invalid:6379")
    assert time.monotonic() - began < SECONDS


def test_auto_is_where_ray_was_started_last(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(addresses, "START_SECONDS", 0.2)
    refused(command, "auto", "no Ray runs on this machine, where auto looks for one; start it (ray start --head)")
    port = free_port()
    (tmp_path / "temporary" / "ray").mkdir(parents=True)
    (tmp_path / "temporary" / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}")
    refused(command, "auto", f"no Ray cluster answers at 127.0.0.1:{port}")
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    told = command("run", "small.yaml", "workspace=space")
    assert (told.code, f"127.0.0.1:{port}" in told.err) == (4, True)
    searched = command("search", "small.yaml", "workspace=space", "--points", "2", "--address", "auto")
    assert (searched.code, f"127.0.0.1:{port}" in searched.err) == (4, True), searched.said


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:x", "head:99999", "ray://", "ray://head", "http://head"])
def test_what_can_be_no_address_is_a_mistake_in_the_command(command: Command, address: str) -> None:
    told = command("run", "small.yaml", "workspace=space", "--address", address)
    assert told.code == 2, told.said
    assert "is not the address of a Ray cluster; give host:port" in told.err


def test_a_head_that_is_being_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "ASK_SECONDS", 0.3)
    port = free_port()
    listening: list[socket.socket] = []
    timer = threading.Timer(0.5, lambda: listening.append(socket.create_server(("127.0.0.1", port))))
    timer.start()
    with pytest.raises(ResourceError, match="something listens at"):  # it came up; that it is no Ray is found out then
        check_cluster(f"127.0.0.1:{port}")
    timer.join()
    listening[0].close()


def test_other_versions_are_told_with_both() -> None:
    with pytest.raises(ResourceError) as told:
        check_versions("head:6379", json.dumps({"ray_version": "2.9.0", "python_version": "3.9.1"}).encode())
    assert "head:6379 runs Ray 2.9.0 with Python 3.9.1, and this is Ray " in str(told.value)
    assert f"with Python {sys.version.split()[0]} ({sys.executable})" in str(told.value)
    check_versions("head:6379", b"{}")


# With a head of its own


@pytest.fixture(scope="module")
def head() -> Iterator[tuple[subprocess.Popen[bytes], int, int, dict[str, str]]]:
    """A head on loopback that asks for a token: its process, its port, that of Ray's client, and the environment that may use it."""
    port, client = free_port(), free_port()
    temporary = Path(tempfile.mkdtemp(prefix="ml-"))  # short: Ray puts sockets below it, whose paths may not be long
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "TMPDIR": str(temporary)}
    command = [RAY, "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", str(port), "--num-cpus", "2"]
    command += ["--ray-client-server-port", str(client), "--include-dashboard", "false", "--disable-usage-stats"]
    command += ["--dashboard-agent-listen-port", str(free_port()), "--temp-dir", temporary / "r"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.time() + 120
        while time.time() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", client), timeout=1):
                break
            time.sleep(0.1)
        yield process, port, client, environment
    finally:
        tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for member in tree:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(tree, timeout=30)
        process.wait()
        shutil.rmtree(temporary, ignore_errors=True)


def asked(environment: dict[str, str], workspace: Path, address: str) -> subprocess.Popen[str]:
    """The tiny run at an address; a head that is away is given up after three seconds in place of fifteen."""
    code = "import sys; import pipeline.graph.cluster as cluster; cluster.HEAD_SECONDS = 3; from pipeline.cli import main; main()"
    command = [sys.executable, "-c", code, "run", str(TINY), f"workspace={workspace}", "--address", address]
    return subprocess.Popen(command, env=environment, cwd=TINY.parents[2], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_that_does_not_fit_is_told_and_one_that_is_killed_too(
    head: tuple[subprocess.Popen[bytes], int, int, dict[str, str]], tmp_path: Path
) -> None:
    process, port, client, environment = head
    strange = "import json, sys; from ray._raylet import GcsClient; made = GcsClient(address=sys.argv[1]); "
    strange += "made.internal_kv_put(b'CLUSTER_METADATA', json.dumps({'ray_version': '2.9.0', 'python_version': '3.9.1'}).encode(), True, "
    strange += "namespace=b'cluster')"
    other_token = {**environment, "RAY_AUTH_TOKEN": "0" * 32}
    wrong = {
        f"127.0.0.1:{port}": (other_token, "copy the head's ~/.ray/auth_token"),
        f"ray://127.0.0.1:{client}": ({**other_token, "RAY_AUTH_MODE": ""}, "set RAY_AUTH_MODE=token"),
        f"127.0.0.1:{client}": (environment, "put ray:// before a client's port"),
        f"ray://127.0.0.1:{port}": (environment, "leave out ray://, or give the port of Ray's client"),
    }
    began = time.monotonic()
    started = [(asked(given, tmp_path / "refused", address), says) for address, (given, says) in wrong.items()]
    running = asked(environment, tmp_path / "run", f"127.0.0.1:{port}")
    for each, says in started:
        told = each.communicate(timeout=60)[0]
        assert (each.returncode, says in told, "Traceback" in told) == (4, True, False), told
    assert time.monotonic() - began < SECONDS, "five processes were started at once"
    assert running.stdout is not None
    lines = []
    for line in running.stdout:
        lines.append(line)
        if "start" in line.split():
            break
    subprocess.run([sys.executable, "-c", strange, f"127.0.0.1:{port}"], env=environment, check=True)
    other = asked(environment, tmp_path / "refused", f"127.0.0.1:{port}")
    told = other.communicate(timeout=60)[0]
    assert (other.returncode, "runs Ray 2.9.0 with Python 3.9.1, and this is Ray" in told) == (4, True), told
    next(each for each in psutil.Process(process.pid).children(recursive=True) if each.name() == "gcs_server").kill()
    began = time.monotonic()
    told = "".join(lines) + running.communicate(timeout=100)[0]
    assert running.returncode == 4, told[-3000:]
    assert "error: Ray's head does not answer any more; run the same command again to go on" in told, told[-3000:]
    assert time.monotonic() - began < 50, "Ray itself ends the driver, with 1 and without a word, after a minute"
