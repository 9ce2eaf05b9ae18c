"""Secrets stay where they are: none in what is printed, kept in the workspace, or sent to MLflow, whichever way they were given."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import EXPERIMENT, changed, ended
from free_ports import free_port

from benchmarks.tracking_server import tracking_server
from pipeline.tracking.backend import without_password

REPOSITORY = Path(__file__).parents[2]
SECRETS = {
    "HF_TOKEN": "hf_sesameOpensNothing01",
    "AWS_SECRET_ACCESS_KEY": "sesameOpensNothing02/kEy+",
    "MLFLOW_TRACKING_PASSWORD": "sesameOpensNothing03",
}
PASSWORD = "sesameOpensNothing04"
MARK = re.compile(rb"(?i)sesame.?opens.?nothing\d*")
"""What all of them contain."""


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def experiment(tmp_path: Path, more: str) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(EXPERIMENT + more)
    return path


@pytest.mark.parametrize(
    "tracking",
    [
        f"ftp://me:{PASSWORD}@files.example/mlflow",
        f"me:{PASSWORD}@files.example",
        f"https//me:{PASSWORD}@files.example",
        f"[postgresql://me:{PASSWORD}@database.example/mlflow]",
    ],
)
def test_an_address_that_is_refused_is_told_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tracking: str, given: None
) -> None:
    for command in ("validate", "plan", "run"):
        told = ended(capsys, command, experiment(tmp_path, f"tracking: {{uri: {tracking!r}}}\n".replace("'[", "[").replace("]'", "]")))
        assert told.code == 2
        assert "tracking.uri" in told.said
        assert not MARK.search(told.said.encode()), told.said


def test_a_variable_that_is_refused_is_told_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"ftp://me:{PASSWORD}@files.example/mlflow")
    told = ended(capsys, "run", experiment(tmp_path, f"workspace: {tmp_path / 'work'}\n"))
    assert told.code == 2
    assert "MLFLOW_TRACKING_URI" in told.said
    assert not MARK.search(told.said.encode()), told.said


def test_addresses_given_on_the_command_line_are_repeated_without_their_passwords(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: None
) -> None:
    override = f"tracking.uri=postgresql://me:{PASSWORD}@database.example/mlflow"
    for command in ("validate", "plan"):
        told = ended(capsys, command, experiment(tmp_path, ""), override, f"workspace={tmp_path / 'work'}")
        assert told.code == 0, told.said
        assert "next: python -m pipeline" in told.said
        assert not MARK.search(told.said.encode()), told.said


@pytest.mark.parametrize("key", ["api_token", "password"])
def test_an_unknown_option_of_data_is_named_without_its_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, given: None
) -> None:
    (tmp_path / "ai2d").mkdir()
    data = f"data:\n  diagrams: {{benchmark: ai2d, directory: {tmp_path / 'ai2d'}, options: {{{key}: {PASSWORD}}}}}\n"
    told = ended(capsys, "validate", experiment(tmp_path, data))
    assert told.code == 2
    assert key in told.said
    assert not MARK.search(told.said.encode()), told.said


def test_pages_of_a_server_are_told_without_its_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://me:{PASSWORD}@mlflow.example/")
    told = ended(capsys, "ui", "--workspace", tmp_path)
    assert "https://mlflow.example/#/experiments" in told.out
    assert not MARK.search(told.said.encode())


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (f"postgresql://me:{PASSWORD}@db:5432/mlflow?sslmode=require", "postgresql://me@db:5432/mlflow?sslmode=require"),
        (f"postgresql://db/mlflow?user=me&password={PASSWORD}&sslmode=require", "postgresql://db/mlflow?user=me&sslmode=require"),
        (f"https://me:a:{PASSWORD}@b@mlflow.example/x", "https://me@mlflow.example/x"),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("sqlite:////home/a:b@c/mlflow.db", "sqlite:////home/a:b@c/mlflow.db"),
    ],
)
def test_an_address_without_its_password_still_leads_there(given: str, kept: str) -> None:
    assert without_password(given) == kept


@pytest.fixture
def ray_home() -> Iterator[Path]:
    """Where Ray keeps its logs in this test: short, as its sockets' names are bounded."""
    home = Path(tempfile.mkdtemp(prefix="ray"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_run_leaves_no_secret_anywhere(tmp_path: Path, ray_home: Path, database: Path) -> None:
    """A real run, mirrored to a server whose address has a password; then all that it left is searched, Ray's session included."""
    work = tmp_path / "work"
    with tracking_server(tmp_path / "server", f"sqlite:///{database}", free_port()) as uri:
        address = uri.replace("://", f"://me:{PASSWORD}@")
        file = tmp_path / "small.yaml"
        file.write_text(changed("tasks: [parity, count]", "tasks: [parity]") + f"tracking: {{uri: {address!r}, usage: 1, wait: 120}}\n")
        environment = {
            **os.environ,
            **SECRETS,
            "MLFLOW_TRACKING_USERNAME": "me",
            "RAY_TMPDIR": str(ray_home),
            "RAY_BACKEND_LOG_LEVEL": "debug",
        }
        said = [
            subprocess.run(
                [sys.executable, "-m", "pipeline", command, *arguments, f"workspace={work}", *options],
                cwd=REPOSITORY, env=environment, capture_output=True, check=False,
            )
            for command, arguments, options in (
                ("validate", [file], []),
                ("plan", [file], []),
                ("run", [file], ["--cpus", "2"]),
                ("run", [file, "alpha=0.5"], []),
            )
        ]  # fmt: skip
    printed = b"".join(each.stdout + each.stderr for each in said)
    assert [each.returncode for each in said] == [0, 0, 0, 0], printed.decode()
    assert b"wait for MLflow" not in printed, printed.decode()  # all of it is there, the second time too
    file.unlink()  # what the user wrote is the user's
    found = {path: path.read_bytes() for place in (tmp_path, ray_home) for path in place.rglob("*") if path.is_file()}
    names = {path.name for path in found}
    assert {
        "record.json",
        "events.jsonl",
        "environment.json",
        "experiment.yaml",
        "report.md",
        "mlflow.db",
        "usage.jsonl",
        "usage-worker_0.jsonl",
    } <= names
    assert any(path.is_relative_to(ray_home) and path.name.startswith("worker-") for path in found)
    assert any(path.is_relative_to(tmp_path / "server") and path.name == "environment.json" for path in found)  # an artifact
    assert any(b"//me@127.0.0.1" in content for content in found.values())  # the address itself is kept, so the search does look there
    assert not MARK.search(printed)
    assert [str(path) for path, content in found.items() if MARK.search(content)] == []
