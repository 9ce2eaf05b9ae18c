"""A team's tracking server as `deploy/mlflow/` sets it up: real runs at once, and who is let in."""

import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mirrored import REPOSITORY, TINY
from pipelines_at_once import Recorded, differences, logged, points_in, undisturbed
from postgres_cluster import Postgres
from tls_proxy import certificate, tls_before
from tracking_server import Server

from foundation.errors import ConfigError
from pipeline.config.experiment import build
from pipeline.store import Store
from pipeline.tracking.admission import CERTIFICATE, OPENED, PASSWORD, check_admission
from pipeline.tracking.backend import open_client

SECONDS = 500
OPENER = Path(__file__).parent / "opening_postgres.py"


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS + 200)
def test_two_runs_at_once_with_two_workers_each(as_ann: Server, cluster: Postgres, empty_database: Path, tmp_path: Path) -> None:
    """Real training, real merges: the server holds what each run's records come to alone, and no password lies about."""
    runs = []
    for index in range(2):
        given = (
            f"workspace={tmp_path / str(index)}",
            f"seed={index}",
            "tasks=[parity]",
            "tracking.experiment=at once",
            "train.workers=2",
            "tracking.wait=300",
        )
        command = [sys.executable, "-m", "pipeline", "run", str(TINY), *given, "--cpus", "2"]
        log = open(tmp_path / f"log{index}", "w")  # noqa: SIM115 (handed to the process)
        environment = {**os.environ, "MLFLOW_TRACKING_URI": as_ann.uri}
        runs.append((given, subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)))
    try:
        codes = [process.wait(SECONDS) for _, process in runs]
    finally:
        for _, process in runs:
            process.kill()
    told = [(tmp_path / f"log{index}").read_text() for index in range(2)]
    assert codes == [0, 0], "\n".join(told)
    built = [(build(TINY, list(given)), given) for given, _ in runs]
    alone = undisturbed([Recorded(one, Store(one.workspace / "store"), given) for one, given in built], empty_database)
    assert points_in(alone) > 100
    assert differences(logged(cluster.uri("mlflow"), "at once"), alone) == []
    secret = as_ann.user("ann").password.encode()
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert len(kept) > 50
    assert not [path for path in kept if secret in path.read_bytes()]


def test_who_is_not_known_is_refused(as_ann: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    check_admission(as_ann.uri, "anything new")
    monkeypatch.setenv(PASSWORD, "not her password")
    with pytest.raises(ConfigError, match=r"401, credentials: sent.*MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"):
        check_admission(as_ann.uri, "anything new")
    monkeypatch.delenv(PASSWORD)
    with pytest.raises(ConfigError, match="401, credentials: not set"):
        check_admission(as_ann.uri, "anything new")


def test_a_wrong_password_stops_a_run_before_any_work(team: Server, tmp_path: Path) -> None:
    wrong = secrets.token_hex(8)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": team.uri, "MLFLOW_TRACKING_USERNAME": "ann", PASSWORD: wrong}
    command = [sys.executable, "-m", "pipeline", "run", str(TINY), f"workspace={tmp_path}"]
    ended = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 2, said
    assert "MLFLOW_TRACKING_USERNAME" in said
    assert wrong not in said
    assert not (tmp_path / "store").exists()


def test_the_team_may_write_except_where_it_is_denied(as_ann: Server) -> None:
    bob = as_ann.user("bob")
    made = [as_ann.ask("POST", "/api/2.0/mlflow/experiments/create", bob, {"name": name}) for name in ("of the team", "closed")]
    assert [status for status, _ in made] == [200, 200]
    denied = {"resource_type": "experiment", "resource_id": json.loads(made[1][1])["experiment_id"], "permission": "DENY"}
    assert as_ann.ask("POST", "/api/3.0/mlflow/users/permissions/grant", bob, {"username": "ann", **denied})[0] == 200
    check_admission(as_ann.uri, "of the team")
    assert open_client(as_ann.uri).get_experiment_by_name("of the team").tags[OPENED] == "true"
    with pytest.raises(ConfigError, match=r"does not let ann read the experiment 'closed' \(403: .*ask for the right EDIT"):
        check_admission(as_ann.uri, "closed")


def test_it_goes_by_the_names_it_was_given(as_ann: Server) -> None:
    ann, path = as_ann.user("ann"), "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
    for name in ("mlflow.example.org", "mlflow.example.org:443", "127.0.0.1:1"):
        assert as_ann.ask("GET", path, ann, host=name)[0] == 200
    status, said = as_ann.ask("GET", path, ann, host="mlflow.elsewhere.org")
    assert (status, "Invalid Host header" in said) == (403, True)


def test_behind_tls(as_ann: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = certificate(tmp_path)
    with tls_before(int(as_ann.uri.rpartition(":")[2]), shown) as uri:
        with pytest.raises(ConfigError, match=f"{uri} is not trusted here; name the file .* by {CERTIFICATE}"):
            check_admission(uri, "over tls")
        monkeypatch.setenv(CERTIFICATE, str(shown))
        check_admission(uri, "over tls")
        client = open_client(uri)
        assert client.get_experiment(client.create_experiment("over tls")).name == "over tls"
        check_admission(uri, "over tls")
        monkeypatch.setenv(PASSWORD, "not her password")
        with pytest.raises(ConfigError, match="401"):
            check_admission(uri, "over tls")


def test_a_wrong_database_password_is_refused_and_not_shown(cluster: Postgres) -> None:
    check_admission(cluster.uri("postgres"), "anything")
    wrong = secrets.token_hex(8)
    with pytest.raises(ConfigError) as refused:
        check_admission(cluster.uri("postgres").replace(cluster.password, wrong), "anything")
    said = str(refused.value)
    assert f"postgresql://127.0.0.1:{cluster.port}/postgres refuses: password authentication failed" in said
    assert wrong not in said
    with pytest.raises(ConfigError, match='database "nowhere" does not exist'):
        check_admission(cluster.uri("nowhere"), "anything")


def test_a_database_that_is_down_is_no_reason_to_stop() -> None:
    pytest.importorskip("psycopg", reason="asking PostgreSQL needs mergeline[servers]")
    check_admission("postgresql://mlflow@127.0.0.1:1/mlflow", "anything")


@pytest.mark.slow
def test_a_first_opening_that_is_killed_leaves_a_database_that_opens(cluster: Postgres) -> None:
    """MLflow makes its tables in transactions, and the lock ends with the connection."""
    uri = cluster.create("killed")
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    openers = [subprocess.Popen([sys.executable, str(OPENER), uri], env=environment, **streams) for _ in range(4)]
    try:
        assert [opener.stdout.readline() for opener in openers] == ["ready\n"] * 4
        for opener, delay in zip(openers, (0.1, 0.4, 0.8), strict=False):
            opener.stdin.write("go\n")
            opener.stdin.flush()
            time.sleep(delay)
            opener.kill()
        said, _ = openers[-1].communicate("go\n", timeout=120)
    finally:
        for opener in openers:
            opener.kill()
            opener.communicate()
    assert (openers[-1].returncode, said) == (0, "opened\n"), said
    assert cluster.ask("select count(*) from alembic_version", "killed") == "1"
