"""The keys below `tracking:`, as `validate` sees them: what cannot be honoured is refused, with the value and without a password."""

from pathlib import Path

import pytest
from commands import ended
from mirrored import TINY

from pipeline.config.experiment import build
from pipeline.tracking.backend import tracking_uri


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("uri=''", "tracking.uri is empty"),
        ("uri=sqlite:///", "names no file"),
        ("uri=sqlite:////", "names no file"),
        ("uri='sqlite:///:memory:'", "kept in memory"),
        ("uri=sqlite:///~/mlflow.db", "has a ~, which is not understood"),
        ("uri=sqlite:////w/m.db?mode=ro", "has a ?, which is not understood"),
        ("uri=http://", "names no host"),
        ("uri=http://a b:5000", "whose host cannot be one"),
        ("uri=http://host:99999", "whose port is no number up to 65535"),
        ("uri='http://[::1'", "whose brackets do not close"),
        ("uri='http://host:5000/#/experiments/1'", "which is that of a page; a server's address ends before the #"),
        ("uri=databricks", "neither a tracking server"),
        ("uri='file:'", "neither a tracking server"),
        ("uri=postgresql", "neither a tracking server"),
        ("uri=mysqlx://host/db", "neither a tracking server"),
        ("experiment=''", "tracking.experiment is empty"),
        ("experiment=' x'", "with a blank at an end"),
        (f"experiment={'x' * 300}", "tracking.experiment has 300 characters"),
        ('registered_model="a\\nb"', "a character that cannot be seen"),
        ("wait=-1", "give at least 0"),
        ("wait=1e308", "give at most 1,000,000"),
        ("wait=.nan", "tracking.wait is"),
        ("usage=1e-9", "tracking.usage is 1e-09 s, and looking so often is work of its own; give 0.1 or more, or 0 for never"),
        ("usage=1e300", "give at most"),
        ("usage=.inf", "tracking.usage is"),
    ],
)
def test_what_cannot_be_honoured_is_refused(given: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = ended(capsys, "validate", TINY, f"tracking.{given}")
    assert told.code == 2
    assert said in told.err
    assert len(told.err.splitlines()) == 1


@pytest.mark.parametrize(
    "address", ["http://me:hunter22@host:1x", "http://me:hun/ter22@host:1", "databricks://me:hunter22@x", "me:hunter22@x"]
)
def test_no_refusal_repeats_a_password(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = ended(capsys, "validate", TINY, f"tracking.uri={address}")
    assert told.code == 2
    assert "ter22" not in told.said


def test_what_can_be_honoured_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = ["tracking.experiment='日本 \"a\": b@c/d'", "tracking.registered_model=.hidden", "tracking.usage=0", "tracking.wait=0"]
    tracking = build(TINY, [f"workspace={tmp_path}", *overrides]).config.tracking
    assert (tracking.experiment, tracking.registered_model) == ('日本 "a": b@c/d', ".hidden")
    for uri in ("https://me:pass@host/below", "http://[::1]:5000", "https://bücher.example", "postgresql+psycopg://me@/db?host=/run"):
        assert tracking_uri(uri, tmp_path) == uri
    monkeypatch.chdir(tmp_path)
    assert tracking_uri("sqlite:///a b.db", tmp_path) == f"sqlite:///{tmp_path / 'a b.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert tracking_uri(None, Path("ws")) == f"sqlite:///{tmp_path / 'ws' / 'mlflow.db'}"


def test_an_empty_address_on_the_command_line_is_no_other_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["sync", "digits"], ["lineage", "models:/digits@best"]):
        told = ended(capsys, *command, "--tracking", "")
        assert told.code == 2, told.said
        assert "--tracking is empty" in told.err
