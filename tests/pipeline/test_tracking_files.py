"""SQLite files that cannot hold MLflow's book: refused before any work, and what goes wrong with one while it is written to."""

import errno
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from commands import ended
from mirrored import TINY, make, write

from foundation.errors import ConfigError, InputError
from pipeline.command.lineage import uri_in
from pipeline.runner import alone
from pipeline.tracking.ancestry import client_of
from pipeline.tracking.backend import _make, open_client, sqlite_has_run
from pipeline.tracking.book import folder_of
from pipeline.tracking.schema import check_file, revisions
from pipeline.tracking.tracker import keep_journal
from pipeline.tracking.writing.written import read_refused, read_written

ONE = "tasks=[parity]"


def set_revision(database: Path, revision: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("update alembic_version set version_num = ?", (revision,))
        connection.commit()


def test_the_newest_tables_are_those_that_mlflow_makes(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        (made,) = connection.execute("select version_num from alembic_version").fetchone()
    assert [each for each in revisions() if not any(each in before for before in revisions().values())] == [made]
    check_file(database)


def test_a_database_of_an_older_or_newer_mlflow_is_refused_with_what_to_do(database: Path) -> None:
    older = next(before for before in revisions().values() if before)[0]
    set_revision(database, older)
    with pytest.raises(ConfigError, match=r"made by an older MLflow than .*mlflow db upgrade 'sqlite:///.*mlflow\.db'"):
        check_file(database)
    set_revision(database, "ffffffffffff")
    with pytest.raises(ConfigError, match=r"made by a newer MLflow than .* \(revision ffffffffffff\); install that one"):
        check_file(database)
    with pytest.raises(InputError, match="made by a newer MLflow"):
        client_of(f"sqlite:///{database}")


def test_what_is_no_database_is_refused_before_any_work(tmp_path: Path, database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("no database at all")
    (tmp_path / "torn").write_bytes(database.read_bytes()[:100_000])
    for name, said in {
        ".": "is a directory",
        "text": "is no SQLite database",
        "text/x.db": f"lies below {tmp_path / 'text'}, which is a file",
        "torn": "is damaged",
    }.items():
        with pytest.raises(ConfigError, match=said):
            check_file(tmp_path / name)
    check_file(tmp_path / "new" / "mlflow.db")
    built, _ = make(tmp_path / "ws", TINY, ONE)
    told = ended(capsys, "run", TINY, ONE, f"workspace={tmp_path / 'ws'}", f"tracking.uri=sqlite:///{tmp_path / 'text'}")
    assert (told.code, len(told.err.splitlines())) == (2, 1)
    assert "is no SQLite database; move it aside" in told.err
    assert not (built.run_directory / "tracking").exists()


def test_one_that_may_not_be_written_is_read_without_a_lock(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(path.name for path in database.parent.iterdir())
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # as on a disk that is mounted read-only
    with pytest.raises(ConfigError, match="cannot be written by this user"):
        check_file(database)
    assert open_client(f"sqlite:///{database}").search_experiments(max_results=1)
    assert sorted(path.name for path in database.parent.iterdir()) == before


def test_an_empty_file_is_made_under_another_name_too(tmp_path: Path, empty_database: Path) -> None:
    """A process that is killed while MLflow makes its tables must not leave them half made under the database's name."""
    made: list[Path] = []
    _make(tmp_path / "mlflow.db", lambda new: made.append(Path(shutil.copy(empty_database, new))))
    assert made == [tmp_path / ".mlflow.db.new"]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_a_full_disk_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow tries again by itself, and then complains of tables that its first attempt left."""

    def tables(new: Path) -> None:
        new.write_bytes(b"half")
        raise RuntimeError("table experiments already exists")

    with pytest.raises(RuntimeError, match="already exists"):
        _make(tmp_path / "mlflow.db", tables)
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free._replace(free=5000))
    with pytest.raises(OSError, match="No space left on device: a new database needs 2,097,152 bytes, 5,000 are free") as full:
        _make(tmp_path / "mlflow.db", tables)
    assert full.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_a_database_that_is_removed_while_it_is_written_ends_the_process_and_a_new_one_begins_again(
    tmp_path: Path, database: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow would go on writing to the file without a name, and the run would be said to be there."""
    from pipeline.tracking.writing.replay import Replay

    built, store = make(tmp_path / "ws", TINY, ONE, steps=3)
    keep_journal(built, store)
    real = Replay.finish

    def finish(self: Replay, *told: object) -> object:
        place = real(self, *told)  # type: ignore[arg-type]
        database.unlink()
        return place

    monkeypatch.setattr(Replay, "finish", finish)
    with pytest.raises(SystemExit, match="was removed while it was written to"):
        write(built, database)
    monkeypatch.undo()
    other = Path(shutil.copy(empty_database, tmp_path / "again.db"))  # of the same name MLflow would keep the old one open in this process
    place = write(built, other).place
    assert place is not None
    assert sqlite_has_run(f"sqlite:///{other}", place.pipeline_run)


@pytest.mark.parametrize("name", ["../../out", "/etc/x", "a/b", "..", ".hidden", "日本", "x" * 250, "a:b", ""])
def test_no_name_of_an_experiment_leads_its_artifacts_elsewhere(name: str) -> None:
    folder = folder_of(name)
    assert Path("/ws/mlartifacts", folder).resolve().parent == Path("/ws/mlartifacts")
    assert len(folder) < 200
    assert folder != folder_of(name + "_")


def test_plain_names_keep_their_directories() -> None:
    assert [folder_of(name) for name in ("digits", "my runs", "a.b-c=1")] == ["digits", "my runs", "a.b-c=1"]


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "null", '"text"', "{}", '{"uri": 5}', "[" * 100_000])
@pytest.mark.parametrize("name", ["tracking/written.json", "tracking/refused.jsonl", "tracking.json"])
def test_damaged_notes_of_a_run_say_nothing(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    assert read_written(tmp_path) is None
    assert read_refused(tmp_path) == {}
    assert uri_in(path) in ("", "5")


def test_notes_with_values_of_another_kind_are_none_of_ours(tmp_path: Path) -> None:
    place = {"uri": "sqlite:////x", "experiment": "1", "pipeline_run": "r", "compared": ["a"], "tracks": []}
    told = {"uri": "u", "identity": "i", "offset": 5, "session": "s", "trouble": "", "refused": 0, "wrote": {}, "place": place}
    path = tmp_path / "tracking" / "written.json"
    path.parent.mkdir()
    path.write_text(json.dumps(told))
    found = read_written(tmp_path)
    assert found is not None
    assert found.place is not None
    for name, value in {"offset": -1, "uri": 5, "refused": "many", "wrote": 3, "place": {**place, "uri": 5}, "other": 1}.items():
        path.write_text(json.dumps({**told, name: value}))
        assert read_written(tmp_path) is None, name


def test_sync_says_that_the_run_is_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built, _ = make(tmp_path, TINY, ONE)
    with alone(built.run_directory):
        told = ended(capsys, "sync", built.name, "--workspace", tmp_path)
    assert told.code == 4
    assert "is in use: the run goes on, or another sync writes it; wait for its end" in told.err
    assert ended(capsys, "sync", built.name, "--workspace", tmp_path, "--wait", "nan").code == 2
    assert not (built.run_directory / "tracking").exists()
