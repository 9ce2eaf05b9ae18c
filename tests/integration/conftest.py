"""Servers that tests here share: one PostgreSQL, one team's tracking server over it. Both start with the first test that needs them.

Where a program or package is missing, tests are skipped and say which.
"""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_cluster import Postgres, missing, postgres
from tracking_server import Server, team_server

sys.path.append(str(Path(__file__).parents[1] / "pipeline"))  # `mirrored.py`: experiments whose records need no training

PACKAGES = {"psycopg": "psycopg[binary]", "flask_wtf": "Flask-WTF"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs the servers is an integration test; under xdist they share them in one worker."""
    for item in items:
        if {"cluster", "team"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.xdist_group("servers"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Postgres]:
    """PostgreSQL, or a skip that says what is missing."""
    lacking = [f"no package {package}" for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    reason = missing() or (f"{' and '.join(lacking)} here: `make integration` installs what is pinned" if lacking else None)
    if reason is not None:
        pytest.skip(reason)
    with postgres() as running:
        yield running


@pytest.fixture(scope="session")
def team(cluster: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The tracking server of `deploy/mlflow/`, on PostgreSQL, with users and proxied artifacts."""
    with team_server(tmp_path_factory.mktemp("team"), cluster.create("mlflow"), cluster.create("mlflow_auth")) as running:
        yield running


@pytest.fixture
def as_ann(team: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The team's server, and this process as one of its members."""
    for name, value in team.user("ann").environment().items():
        monkeypatch.setenv(name, value)
    return team


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with MLflow's tables and nothing in them, to be copied."""
    from pipeline.tracking.backend import open_client

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    open_client(f"sqlite:///{path}")
    return path
