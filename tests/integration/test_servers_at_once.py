"""Four pipelines that log at once, from processes of their own: nothing is lost and nothing doubled, on a file, a server and a database."""

from pathlib import Path

import pytest
from mirrored import Dump
from pipelines_at_once import Recorded, differences, log_at_once, logged, points_in, records_of, undisturbed, versions
from postgres_cluster import Postgres
from tracking_server import Server

from pipeline.steps import Merge
from pipeline.tracking.backend import open_client

pytestmark = pytest.mark.integration

PIPELINES = 4


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> list[Recorded]:
    """Four experiments with records."""
    return records_of(tmp_path_factory.mktemp("four"), PIPELINES)


@pytest.fixture(scope="module")
def alone(experiments: list[Recorded], empty_database: Path) -> Dump:
    """What each of them comes to alone."""
    expected = undisturbed(experiments, empty_database)
    assert points_in(expected) > 100 * PIPELINES
    return expected


@pytest.fixture(scope="module")
def merges(experiments: list[Recorded]) -> list[str]:
    """The steps that make merged checkpoints, each of which is to be a version of the registered model once."""
    return sorted(step.key for one in experiments for step in one.built.steps if isinstance(step, Merge))


def test_on_one_sqlite_file_that_is_not_there_yet(experiments: list[Recorded], alone: Dump, merges: list[str], tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    log_at_once(experiments, {"MLFLOW_TRACKING_URI": uri})
    assert differences(logged(uri, "tiny"), alone) == []
    assert versions(uri, "tiny") == merges


def test_on_a_server_over_postgresql(
    experiments: list[Recorded], alone: Dump, merges: list[str], as_ann: Server, cluster: Postgres
) -> None:
    """What the server holds is read from its database, which answers sooner than it does."""
    log_at_once(experiments, {"MLFLOW_TRACKING_URI": as_ann.uri})
    assert differences(logged(cluster.uri("mlflow"), "tiny"), alone) == []
    assert versions(cluster.uri("mlflow"), "tiny") == merges
    client = open_client(as_ann.uri)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    for run in client.search_runs([experiment], "tags.`mergeline.kind` = 'pipeline'"):
        assert [entry.path for entry in client.list_artifacts(run.info.run_id, "report")] == ["report/report.md"]
        assert list(as_ann.artifacts.glob(f"**/{run.info.run_id}/**/report.md")), "artifacts go through the server to its own directory"


def test_on_a_new_postgresql_database_without_a_server(
    experiments: list[Recorded], alone: Dump, merges: list[str], cluster: Postgres
) -> None:
    """Of several processes that open an empty database at once MLflow lets all but one fail."""
    uri = cluster.create("direct")
    log_at_once(experiments, {"MLFLOW_TRACKING_URI": uri})
    assert not [one for one in experiments if (one.built.workspace / "mlruns").exists()], "artifacts lie where the command was started"
    assert differences(logged(uri, "tiny"), alone) == []
    assert versions(uri, "tiny") == merges
