"""`doctor` on this machine, and the examination of several nodes that are examiners in this process: good ones, and ones with one fault."""

import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import ended
from filelock import FileLock

from pipeline.doctor.examine import examine, probe_directory
from pipeline.doctor.facts import code_digest, secure_token, token_file
from pipeline.doctor.findings import Finding, State
from pipeline.doctor.network import mlflow, status
from pipeline.doctor.nodes import Here
from pipeline.doctor.probe import SWAPPED, WHOLE, Examiner

NEED = 1.0
RESOURCES = {"object_store_memory": 1.0}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a token of its own, as Ray leaves it."""
    token = tmp_path / "home" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text("secret")
    token.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    place = tmp_path / "workspace"
    place.mkdir()
    return place


def examined(workspace: Path, **kinds: type[Examiner]) -> dict[str, Finding]:
    """The findings about nodes of these kinds, by check."""
    with probe_directory(workspace) as place:
        nodes = Here({name: kind(name, str(workspace), str(place)) for name, kind in kinds.items()})
        findings = examine(nodes, workspace, NEED, dict.fromkeys(kinds, RESOURCES), fix=False)
    assert not list(workspace.glob(".doctor-*"))
    return {finding.check: finding for finding in findings}


def problems(findings: dict[str, Finding]) -> list[str]:
    return [check for check, finding in findings.items() if finding.state is State.PROBLEM]


class Elsewhere(Examiner):
    """Sees a directory of its own at the same path: a workspace that is not shared."""

    def __init__(self, name: str, workspace: str, directory: str) -> None:
        own = Path(workspace).parent / f"own of {name}"
        own.mkdir()
        super().__init__(name, workspace, str(own))


class Late(Examiner):
    """Sees others' files after a second, as over a network file system."""

    began = 0.0

    def _sees(self, name: str) -> bool:
        self.began = self.began or time.monotonic()
        return time.monotonic() - self.began > 1 and super()._sees(name)


class Blind(Examiner):
    """Has no such directory at all."""

    def __init__(self, name: str, workspace: str, directory: str) -> None:
        super().__init__(name, workspace, directory + "-elsewhere")


class Unlocked(Examiner):
    """Its locks hold nobody, as with NFS mounted `nolock`."""

    def __init__(self, name: str, workspace: str, directory: str) -> None:
        super().__init__(name, workspace, directory)
        self.lock = FileLock(Path(workspace).parent / f"lock of {name}", thread_local=False)


class Copying(Examiner):
    """Replaces a file by removing it and writing it again, as some file systems do."""

    def swap(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            (self.directory / SWAPPED).unlink(missing_ok=True)
            time.sleep(0.002)
            (self.directory / SWAPPED).write_bytes(WHOLE[0])
        return True


class Ahead(Examiner):
    """Its clock is a minute ahead."""

    def now(self) -> float:
        return time.time() + 60


class Broken(Examiner):
    """Does not get as far as to answer."""

    def facts(self, own: bool = False) -> object:  # type: ignore[override]
        raise OSError("no such device")


def test_good_nodes_have_no_problem(workspace: Path) -> None:
    findings = examined(workspace, a=Examiner, b=Examiner, c=Examiner)
    assert problems(findings) == []
    assert findings["nodes"].seen == "3 answer"
    assert findings["shared files"].seen == "each of 3 nodes reads what each wrote"


def test_files_may_be_seen_late(workspace: Path) -> None:
    assert problems(examined(workspace, a=Examiner, b=Late)) == []


@pytest.mark.parametrize(
    ("kind", "check", "told"),
    [
        (Blind, "shared files", "b: does not see what a wrote"),
        (Unlocked, "file locks", "b: was given a lock that a held"),
        (Ahead, "clocks", "b is at least"),
        (Broken, "nodes", "b: OSError: no such device"),
    ],
)
def test_one_faulty_node_is_found_and_named(workspace: Path, kind: type[Examiner], check: str, told: str) -> None:
    findings = examined(workspace, a=Examiner, b=kind)
    assert problems(findings) == [check]
    assert told in findings[check].seen


def test_directories_that_are_not_shared_are_found(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.doctor.examine.SEEN_SECONDS", 0.2)
    findings = examined(workspace, a=Elsewhere, b=Elsewhere)
    assert problems(findings) == ["shared files"]
    assert findings["shared files"].seen == "a: does not see what b wrote; b: does not see what a wrote"


def test_a_rename_that_is_not_atomic_is_found(workspace: Path) -> None:
    findings = examined(workspace, a=Copying, b=Examiner)
    assert problems(findings) == ["rename"]
    assert findings["rename"].seen.startswith("b: ")


def test_the_command_on_this_machine(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = ended(capsys, "doctor", "--workspace", workspace)
    assert done.code == 0, done.said
    assert list(workspace.iterdir()) == []
    for check in ("workspace", "rename", "file locks", "free space", "/dev/shm", "versions", "token file", "RAY_AUTH_MODE", "MLflow"):
        assert check in done.out
    assert "secret" not in done.said


def test_problems_end_with_exit_code_4_and_say_what_to_do(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = ended(capsys, "doctor", "--workspace", workspace / "none", "--need", "1e9")
    assert done.code == 4
    assert "is not there" in done.out
    assert "1 of" in done.err
    assert "workspace" in done.err
    assert ended(capsys, "doctor", "--workspace", workspace, "--need", "1e9").code == 4  # an exabyte


def test_an_open_token_file_is_closed_with_fix(home: Path, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = home / ".ray" / "auth_token"
    token.chmod(0o644)
    done = ended(capsys, "doctor", "--workspace", workspace)
    assert done.code == 4
    assert "0644" in done.out
    assert token.stat().st_mode & 0o777 == 0o644  # nothing is changed unasked
    assert ended(capsys, "doctor", "--workspace", workspace, "--fix").code == 0
    assert token.stat().st_mode & 0o777 == 0o600


def test_the_token_is_looked_for_where_ray_does(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_file().path == str(home / ".ray" / "auth_token")
    other = tmp_path / "token"
    other.write_text("x")
    other.chmod(0o640)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(other))
    assert token_file().exposed
    assert secure_token()
    assert not secure_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    assert not token_file().present
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x")
    assert token_file().present


def test_the_code_is_told_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    source = tmp_path / "pipeline" / "a.py"
    source.write_text("x = 1\n")
    before = code_digest(tmp_path)
    (tmp_path / "pipeline" / "a.pyc").write_text("not source")
    assert code_digest(tmp_path) == before
    source.write_text("x = 2\n")
    assert code_digest(tmp_path) != before


def test_a_cluster_that_is_not_there(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(capsys, "doctor", "--workspace", workspace, "--address", "127.0.0.1:1").code == 4
    assert ended(capsys, "doctor", "--workspace", workspace, "--address", "nonsense").code == 2


class _Health(http.server.BaseHTTPRequestHandler):
    answer = 200

    def do_GET(self) -> None:
        self.send_response(self.answer if self.path in ("/health", "/api/jobs/") else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """A server on loopback that is well."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Health) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_mlflow_is_asked(server: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mlflow(server, workspace).state is State.OK
    assert mlflow(None, workspace).state is State.OK  # a file that the first run makes
    monkeypatch.setattr(_Health, "answer", 503)
    assert mlflow(server, workspace).state is State.PROBLEM
    down = mlflow("http://ann:hidden-word@127.0.0.1:1", workspace)
    assert down.state is State.PROBLEM
    assert "hidden-word" not in str(down)
    (workspace / "mlflow.db").write_bytes(os.urandom(4096))
    assert mlflow(None, workspace).state is State.PROBLEM
    assert mlflow("nonsense", workspace).state is State.PROBLEM


def test_a_dashboard_that_answers_everybody_is_seen(server: str) -> None:
    assert status(f"{server}/api/jobs/") == 200
    assert status("http://127.0.0.1:1/api/jobs/") is None
