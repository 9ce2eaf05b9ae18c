"""The tiny experiment run once; and for the tests of tracking, an empty database to copy and a finished experiment mirrored once."""

import shutil
from pathlib import Path

import pytest
from mirrored import Whole, complete, dump, make, open_mirror
from tiny_run import run_tiny

from pipeline.config.experiment import Built
from pipeline.runner import Finished


@pytest.fixture(scope="session")
def tiny(ray_cluster: None, empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Built, Finished, str]:
    """One undisturbed run for all tests; they must not change it."""
    workspace = tmp_path_factory.mktemp("tiny")
    shutil.copy(empty_database, workspace / "mlflow.db")
    return workspace, *run_tiny(workspace)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables and nothing in them: making one takes seconds, copying it does not."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> Path:
    return Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Whole:
    """A finished experiment, mirrored once from its records. Tests only read it."""
    workspace = tmp_path_factory.mktemp("whole")
    built, store = make(workspace)
    mirror = open_mirror(built, store, Path(shutil.copy(empty_database, workspace / "mlflow.db")))
    complete(mirror)
    return built, store, mirror, dump(mirror)
