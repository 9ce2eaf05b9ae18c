"""Tracking and the world around it: servers out of reach, several processes, what is printed, when nothing needs to be written."""

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from mirrored import REPOSITORY, TINY, make

from foundation.errors import ConfigError
from pipeline.config.experiment import build
from pipeline.tracking.backend import open_client, tracking_uri
from pipeline.tracking.book import Book
from pipeline.tracking.tracker import Tracker, already_mirrored


def test_what_cannot_hold_a_mirror_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"tracking.uri is 'file:///x', which is neither"):
        tracking_uri("file:///x", tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlruns")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI is 'mlruns'"):
        tracking_uri(None, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert tracking_uri(None, tmp_path) == "https://mlflow.example"
    assert tracking_uri("postgresql://host/db", tmp_path) == "postgresql://host/db"


def _open_book(database: str) -> None:
    Book(f"sqlite:///{database}", "shared", Path(database).parent / "artifacts", "p")


@pytest.mark.slow
def test_several_processes_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_open_book, args=(str(tmp_path / "mlflow.db"),)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * len(workers)


def test_already_mirrored_is_true_only_for_this_run_in_this_database(tmp_path: Path, database: Path) -> None:
    uri = f"tracking.uri=sqlite:///{database}"
    built, store = make(tmp_path / "ws", TINY, uri)
    assert already_mirrored(built) is None  # never written
    place = Tracker(built, store).finish("FINISHED").mirrored
    assert place is not None
    assert already_mirrored(built) == place
    moved = build(TINY, [f"workspace={tmp_path / 'ws'}", f"tracking.uri=sqlite:///{tmp_path / 'other.db'}"])
    assert already_mirrored(moved) is None  # another database
    other = build(TINY, [f"workspace={tmp_path / 'ws'}", uri, "alpha=0.3"])
    shutil.copytree(built.run_directory, other.run_directory)
    assert already_mirrored(other) is None  # another experiment
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=place.uri).delete_run(place.pipeline_run)
    assert already_mirrored(built) is None  # deleted in MLflow
    database.unlink()
    assert already_mirrored(built) is None  # the database is gone
    (built.run_directory / "tracking.json").write_text("[]")
    assert already_mirrored(built) is None  # damaged
    database.write_text("not a database")
    assert already_mirrored(built) is None


@pytest.mark.slow
def test_mlflow_prints_nothing(tmp_path: Path) -> None:
    """In a process of its own, with a new database: no migrations, no addresses, no hints."""
    make(tmp_path / "ws")
    code = (
        "import sys; from pathlib import Path; from pipeline.config.experiment import build; from pipeline.store import Store\n"
        "from pipeline.tracking.tracker import Tracker\n"
        "built = build(Path(sys.argv[1]), [f'workspace={sys.argv[2]}'])\n"
        "tracker = Tracker(built, Store(built.workspace / 'store')); tracker.start()\n"
        "[tracker.done(step) for step in built.steps]; tracker.finish('FINISHED')\n"
    )
    environment: Mapping[str, str] = {
        key: value for key, value in os.environ.items() if not key.startswith("MLFLOW") and key != "PYTEST_CURRENT_TEST"
    }
    command = [sys.executable, "-c", code, str(TINY), str(tmp_path / "ws")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, timeout=120, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.slow
def test_a_database_whose_making_was_killed_is_made_again(tmp_path: Path) -> None:
    """MLflow cannot go on with tables that an interrupted migration left behind, so the half-made file never has the database's name."""
    with closing(sqlite3.connect(tmp_path / ".mlflow.db.new")) as half:
        half.execute("create table _alembic_tmp_metrics (key text)")
    client = open_client(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert client.get_experiment(client.create_experiment("after")).name == "after"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.lock"]
