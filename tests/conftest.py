"""One Ray cluster for all tests that need one, started when the first of them runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from forking import Forking, forking
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("RAY_ADDRESS", None)

# A busy machine may hold any process up for a second: how long an example takes is no sign of anything.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray in this test process, with two processors whatever the machine has."""
    from pipeline.graph.cluster import connected

    with connected(cpus=2):
        yield


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    """Starts processes that have the training libraries loaded."""
    with forking(tmp_path_factory.mktemp("forks")) as started:
        yield started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share one Ray run one after another in one worker, those that start their own beside them; the quick ones come first."""
    shared = {item.path for item in items if "ray_cluster" in getattr(item, "fixturenames", ())}
    for item in items:
        if item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.xdist_group("cluster" if item.path in shared else "clusters of their own"))
    items.sort(key=lambda item: bool(item.get_closest_marker("slow")) + 2 * bool(item.get_closest_marker("cluster")))
