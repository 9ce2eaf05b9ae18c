"""What `submit` refuses before it asks a server, what it would send, and what it says of servers that are none. No cluster is needed."""

import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from free_ports import free_port
from ray.job_submission import JobStatus

from foundation.errors import ConfigError, MergelineError, ResourceError
from pipeline.command.submit import environment
from pipeline.jobs import logs, server
from pipeline.jobs.package import package
from pipeline.jobs.request import read_request

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "experiments" / "digits_wise_ft.yaml"
SHARED = "workspace=/shared/mergeline"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in (server.ADDRESS, "NO_PROXY", "no_proxy", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")  # so that what the code sets is taken back


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([], "no workspace is set, so a job would write to its own directory, which is removed after it; add workspace=/path"),
        (["workspace=runs"], "command line: workspace is 'runs', below a job's own directory"),
        ([SHARED, "base=./checkpoint"], "base is './checkpoint'"),
        ([SHARED, "base=~/checkpoint"], "absolute path"),
        ([SHARED, "data={birds: {train: birds.json, test: /shared/b.json}}"], "data.birds.train is 'birds.json'"),
        ([SHARED, "evaluate.harness={lm_eval: {tasks: [x], python: bin/python}}"], "evaluate.harness.lm_eval.python is 'bin/python'"),
        ([SHARED, "alhpa=0.3"], "did you mean 'alpha'"),
        ([SHARED, "alpha=1.5"], "alpha"),
        ([SHARED, "tracking.uri=http://ann:hunter2@mlflow"], "override tracking.uri=… holds a password or token"),
    ],
)
def test_what_no_job_could_run_is_refused_here(overrides: list[str], says: str) -> None:
    with pytest.raises(MergelineError) as refused:
        read_request(DIGITS, overrides)
    assert says in str(refused.value)
    assert refused.value.exit_code == 2
    assert "hunter2" not in str(refused.value)


def test_a_password_in_the_file_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(f"{DIGITS.read_text()}\ntracking:\n  uri: http://ann:hunter2@mlflow\n")
    with pytest.raises(ConfigError, match=r"x\.yaml:\d+: this holds a password") as refused:
        read_request(file, [SHARED])
    assert "hunter2" not in str(refused.value)


def test_what_only_the_nodes_have_is_told_and_not_checked() -> None:
    request = read_request(DIGITS, [SHARED, "base=/shared/models/base"])
    assert request.places == request.elsewhere == ("/shared/models/base",)
    assert request.summary == ""
    assert read_request(DIGITS, [SHARED]).summary.startswith("valid; recipe wise_ft, 5 stages")
    assert read_request(DIGITS, [SHARED, "base=org/model"]).elsewhere == ()


def test_the_id_is_that_of_what_is_asked_for(tmp_path: Path) -> None:
    asked = read_request(DIGITS, [SHARED])
    copy = tmp_path / "copy.yaml"
    copy.write_text("# a comment\n" + DIGITS.read_text())
    assert read_request(copy, [SHARED]).submission == asked.submission
    assert asked.submission.startswith("digits_wise_ft-")
    others = [
        read_request(DIGITS, [SHARED, "alpha=0.3"]),
        read_request(DIGITS, ["workspace=/other"]),
        read_request(DIGITS, [SHARED, "name=b"]),
    ]
    assert len({asked.submission, *(other.submission for other in others)}) == 4
    assert [asked.number(asked.attempt(number)) for number in (1, 2, 10)] == [1, 2, 10]
    assert asked.number(others[0].submission) is None
    assert asked.number(f"{asked.submission}-x") is None


def test_the_code_and_the_experiment_travel_and_nothing_else(tmp_path: Path) -> None:
    request = read_request(DIGITS, [SHARED])
    files = package(request).files
    tops = {place.split("/")[0] for place in files}
    assert tops == {"foundation", "mergers", "tasks", "models", "trainers", "evaluators", "pipeline", "experiments"}
    assert [place for place in files if place.startswith("experiments/")] == ["experiments/digits_wise_ft.yaml"]
    assert not [place for place in files if place.endswith((".pyc", ".safetensors")) or "__pycache__" in place]
    tracked = subprocess.run(["git", "ls-files", "pipeline", "tasks"], capture_output=True, text=True, check=False).stdout.split()
    assert {place for place in tracked if Path(place).exists()} <= set(files)
    for name in ("a", "b"):
        package(request).write(tmp_path / f"{name}.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert sorted(zipfile.ZipFile(tmp_path / "a.zip").namelist()) == sorted(files)


def test_a_job_starts_from_what_was_sent(tmp_path: Path) -> None:
    request = read_request(DIGITS, [SHARED])
    package(request).write(tmp_path / "job.zip")
    zipfile.ZipFile(tmp_path / "job.zip").extractall(tmp_path / "job")
    command = [*request.entrypoint(sys.executable).replace(" run ", " validate ").split()]
    done = subprocess.run(command, cwd=tmp_path / "job", env={"PATH": "/usr/bin"}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_an_experiment_from_elsewhere_and_its_suite_travel_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "digits.yaml").write_text((ROOT / "suites" / "digits.yaml").read_text())
    outside = tmp_path / "x.yaml"
    text = "".join(line for line in DIGITS.read_text().splitlines(True) if not line.startswith("held_out"))
    outside.write_text(f"{text}\nsuite: suites/digits.yaml\n")
    with pytest.raises(ConfigError, match="does not travel with the job"):
        read_request(outside, [SHARED, f"suite=../{tmp_path.name}/suites/digits.yaml"])
    monkeypatch.chdir(tmp_path)
    request = read_request(outside, [SHARED])
    assert {"x.yaml", "suites/digits.yaml"} <= set(package(request).files)


def test_too_much_is_refused_with_the_largest_file() -> None:
    with pytest.raises(ConfigError, match=r"at most 100.00 kB travel with a job; the largest file is \w+/"):
        package(read_request(DIGITS, [SHARED]), most=100_000)


@pytest.mark.parametrize(
    ("uri", "sent"), [("http://mlflow:5000", True), ("https://ann:hunter2@mlflow", False), ("sqlite:////tmp/mlflow.db", False), ("", False)]
)
def test_only_an_address_without_credentials_is_sent(monkeypatch: pytest.MonkeyPatch, uri: str, sent: bool) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    variables = environment()
    assert ("MLFLOW_TRACKING_URI" in variables) is sent
    assert "hunter2" not in str(variables)


def test_a_dry_run_lists_what_would_be_sent_and_asks_nobody() -> None:
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "submit",
        "experiments/digits_wise_ft.yaml",
        SHARED,
        "--dry-run",
        "--address",
        "http://127.0.0.1:1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "  pipeline/cli.py\n" in done.stdout
    assert f"command     python -m pipeline run experiments/digits_wise_ft.yaml {SHARED}" in done.stdout
    both = subprocess.run([*command, "--stop"], capture_output=True, text=True, timeout=60)
    assert both.returncode == 2
    assert "choose one" in both.stderr


@pytest.mark.parametrize(
    "address",
    ["auto", "ray://head:10001", "http://ann:hunter2@head:8265", "http://head:8265/jobs", "http://", "head:x", "head:99999", "http://[::1"],
)
def test_an_address_that_can_be_no_job_server_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="is not the address of a cluster's job server") as refused:
        server.address_of(address)
    assert "hunter2" not in str(refused.value)


def test_the_address_comes_from_the_option_then_the_environment_then_rays_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.address_of(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv(server.ADDRESS, "http://head:8265")
    assert server.address_of(None) == "http://head:8265"
    assert server.address_of("other:8265/") == "http://other:8265"


class NotRay(BaseHTTPRequestHandler):
    """Answers as some other web server would."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def not_ray() -> Iterator[str]:
    serving = ThreadingHTTPServer(("127.0.0.1", 0), NotRay)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


def test_a_server_that_is_none_is_told_in_seconds(not_ray: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResourceError, match="not as a Ray cluster's job server does"):
        server.connect(not_ray)
    with pytest.raises(ResourceError, match="no job server answers") as nobody:
        server.connect(f"http://127.0.0.1:{free_port()}")
    assert nobody.value.exit_code == 4
    monkeypatch.setattr(server, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(ResourceError, match="no job server answers"):
            server.connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - began < 5


def test_a_port_that_speaks_something_else_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of Ray's own protocol, which is easily taken for the job server's."""
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            with other.accept()[0] as asked:
                asked.recv(1 << 16)
                asked.sendall(b"\0\0\x18\4\0\0\0\0\0\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ResourceError, match="not as a Ray cluster's job server does"):
            server.connect(f"http://127.0.0.1:{other.getsockname()[1]}")


class Breaking:
    """A client whose connection breaks after so many pieces, and holds in the end."""

    def __init__(self, *breaks: int) -> None:
        self.pieces = ["one\n", "two\n", "three\n", "four\n"]
        self.breaks = list(breaks)

    async def tail_job_logs(self, submission: str) -> AsyncIterator[str]:
        most = self.breaks.pop(0) if self.breaks else len(self.pieces) + 1
        for number, piece in enumerate(self.pieces):
            if number == most:
                raise RuntimeError("the connection closed")
            yield piece

    def get_job_status(self, submission: str) -> JobStatus:
        return JobStatus.SUCCEEDED

    def get_job_logs(self, submission: str) -> str:
        return "".join(self.pieces)


class Away(Breaking):
    """A client whose server is gone."""

    def get_job_status(self, submission: str) -> JobStatus:
        raise ConnectionError("nobody listens")


class Silent(Breaking):
    """A job that runs and says nothing: its log ends so many times before it does."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.pieces, self.looks = [], looks

    def get_job_status(self, submission: str) -> JobStatus:
        self.looks -= 1
        return JobStatus.RUNNING if self.looks else JobStatus.SUCCEEDED


def test_a_log_is_told_once_over_broken_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.01)
    for breaks in ((), (2,), (0, 3, 1), (3, 3)):
        assert "".join(logs.follow(Breaking(*breaks), "x")) == "one\ntwo\nthree\nfour\n"
    monkeypatch.setattr(logs, "LOST_SECONDS", 0.05)
    assert "".join(logs.follow(Silent(20), "x")) == ""
    with pytest.raises(ResourceError, match="job x may run on"):
        list(logs.follow(Away(*[0] * 1000), "x"))
