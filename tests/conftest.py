"""One Ray cluster for all tests that need one, started when the first of them runs; and which worker runs which tests, in which order."""

import gc
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


SHARED, OWN = "cluster", "clusters of their own"


@pytest.hookimpl(tryfirst=True)  # before xdist makes the groups part of the tests' names, which is where they bind
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker for all tests that share one Ray, one for those that start their own, and one for those of a file, whose fixtures are then
    made once.

    What takes longest comes first, so that at the end no worker waits for another (xdist keeps to it with `--no-loadscope-reorder`).
    """
    shared = {item.path for item in items if "ray_cluster" in getattr(item, "fixturenames", ())}
    order = []
    for item in items:
        group = item.path.stem
        if item.get_closest_marker("cluster"):
            group = SHARED if item.path in shared else OWN
        if group == SHARED or not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))
        rank = (SHARED, OWN).index(group) if group in (SHARED, OWN) else 2 if item.get_closest_marker("slow") else 3
        order.append((rank, len(order)))
    items[:] = [items[number] for _, number in sorted(order)]


def pytest_collection_finish() -> None:
    """The libraries are loaded for good: every training frees memory at its end by `gc.collect()`, which else goes through all of them."""
    gc.collect()
    gc.freeze()
