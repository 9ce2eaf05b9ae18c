"""`sync`: into an emptied database, from a workspace that was copied, and what it says when it cannot. And runs that wait for MLflow."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import ended
from mirrored import TINY, complete, dump, make, open_mirror, write

from foundation.files import file_sha256
from pipeline.tracking.tracker import already_mirrored
from pipeline.tracking.writing.journal import journal_file, read_events
from pipeline.tracking.writing.written import Wrote

ONE = "tasks=[parity]"
"""One stage: six steps."""


@pytest.fixture
def nobody() -> Iterator[str]:
    """The address of a server that does not run; the port stays ours."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.slow
def test_an_emptied_database_and_a_copied_workspace_are_filled_and_nothing_is_doubled(
    tmp_path: Path, empty_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, store = make(tmp_path / "first", TINY, ONE)
    second, _ = make(tmp_path / "first", TINY, ONE, "alpha=0.3")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "first", copy)
    (tmp_path / "first").rename(tmp_path / "gone")  # nothing may be read where the runs were made
    shutil.copy(empty_database, copy / "mlflow.db")
    told = ended(capsys, "sync", first.name, copy / "runs" / second.name, "--workspace", copy)
    assert told.code == 0, told.said
    for built in (first, second):
        assert f"{built.name}: 9 runs, 3 models and " in told.out
        assert f"points written to sqlite:///{copy / 'mlflow.db'}" in told.out
    moved, store = make_again(copy, ONE)
    assert already_mirrored(moved) is not None
    once = dump(open_mirror(moved, store, copy / "mlflow.db"))
    assert all(f"{tmp_path / 'first'}" not in str(entry) for entry in once.values())
    with open(journal_file(moved.run_directory), "ab") as journal:
        journal.write(b'{"event":"open\n')  # of an attempt that was killed at once
    again = write(moved, copy / "mlflow.db", whole=True)
    assert again.wrote == Wrote(0, 0, 0)
    assert dump(open_mirror(moved, store, copy / "mlflow.db")) == once
    reference = Path(shutil.copy(empty_database, tmp_path / "reference.db"))
    mirror = open_mirror(moved, store, reference)
    complete(mirror)
    assert set(dump(mirror)) == set(once) - {name for name in once if second.identity[:16] in name}


def make_again(workspace: Path, *overrides: str):  # type: ignore[no-untyped-def]
    from pipeline.config.experiment import build
    from pipeline.store import Store

    return build(TINY, [f"workspace={workspace}", *overrides]), Store(workspace / "store")


def test_a_run_that_is_not_there_is_named_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, TINY, ONE)
    told = ended(capsys, "sync", "tini", "--workspace", tmp_path)
    assert told.code == 3
    assert "unknown run 'tini'; Known: tiny-tasks=_parity_" in told.err
    told = ended(capsys, "sync", "tiny-tasks=_parity_", "tiny-tasks=_parity_", "--workspace", tmp_path)
    assert told.code == 2
    assert "named twice" in told.err
    told = ended(capsys, "sync", "tiny-tasks=_parity_", "--workspace", tmp_path, "--tracking", "file:///x")
    assert told.code == 2


def test_a_run_whose_steps_cannot_be_told_any_more_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built, _ = make(tmp_path, TINY, ONE)
    file = built.run_directory / "experiment.yaml"
    text = file.read_text()
    file.write_text(text.replace("max_steps: 8", "max_steps: 9"))
    told = ended(capsys, "sync", built.run_directory)
    assert told.code == 3
    assert "asks for other steps than the run made" in told.err
    file.write_text(text.replace("recipe: wise_ft", "recipe: gone"))
    told = ended(capsys, "sync", built.run_directory)
    assert told.code == 3
    assert "cannot be read again" in told.err
    file.write_text(text)
    (built.run_directory / "run.json").write_text("torn")
    told = ended(capsys, "sync", built.run_directory)
    assert told.code == 3
    assert "run.json cannot be read as a run" in told.err
    built.run_directory.rename(built.run_directory.with_name("renamed"))
    told = ended(capsys, "sync", built.run_directory.with_name("renamed"))
    assert told.code == 3
    assert "give it back that name" in told.err
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_finished_run_waits_as_long_as_it_is_told_and_fails_only_where_mlflow_is_required(
    tmp_path: Path, nobody: str, empty_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built, _ = make(tmp_path, TINY, ONE, f"tracking.uri={nobody}")
    keys = ["run", TINY, f"workspace={tmp_path}", ONE, f"tracking.uri={nobody}", "tracking.wait=0.5"]
    told = ended(capsys, *keys)
    assert told.code == 0, told.said
    assert "accuracy in % after each stage" in told.out
    assert f"2 events wait for MLflow at {nobody} (" in told.out.replace("\n", " ")
    assert f"python -m pipeline sync {built.name} --workspace {tmp_path}" in told.out
    assert already_mirrored(built) is None
    told = ended(capsys, *keys, "tracking.required=true")
    assert told.code == 4
    assert "events wait for MLflow" in told.err
    assert "tracking.required is true" in told.err
    told = ended(capsys, "sync", built.name, "--workspace", tmp_path, "--wait", "0.2")
    assert told.code == 4
    assert f"MLflow at {nobody} could not be written for 0.2 s (" in told.err
    assert [event.status for event, _ in read_events(journal_file(built.run_directory))] == ["", "FINISHED"]
    other = Path(shutil.copy(empty_database, tmp_path / "other.db"))
    told = ended(capsys, *keys[:-2], f"tracking.uri=sqlite:///{other}", "tracking.required=true")
    assert told.code == 0, told.said
    assert "compare-runs" in told.out
    before = file_sha256(other)
    assert ended(capsys, *keys[:-2], f"tracking.uri=sqlite:///{other}").code == 0
    assert file_sha256(other) == before
