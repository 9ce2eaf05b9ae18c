"""What answers over the network: the cluster's dashboard, which must ask for the token, and MLflow."""

import http.client
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

from foundation.errors import MergelineError
from pipeline.doctor.findings import Finding, fine, judge_dashboard, problem
from pipeline.tracking.admission import check_admission
from pipeline.tracking.backend import SERVERS, sqlite_file, tracking_uri, without_secrets

ANSWER_SECONDS = 3
EXPERIMENT = "mergeline doctor"
"""Asked about, never made."""


def dashboard(address: str) -> Finding:
    """`address`: host:port as the cluster tells it, empty for a cluster without a dashboard."""
    if not address:
        return fine("dashboard", "none")
    host, _, port = address.rpartition(":")
    return judge_dashboard(host.strip("[]"), int(port), status(f"http://{address}/api/jobs/"))


def status(url: str) -> int | None:
    """The status of a bare request; None where nothing answers."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=ANSWER_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):  # nobody, or one that does not speak HTTP
        return None


def mlflow(configured: str | None, workspace: Path) -> Finding:
    """Whether the MLflow that a run would write to answers, and lets this pipeline in."""
    try:
        uri = tracking_uri(configured, workspace)
        check_admission(uri, EXPERIMENT)
    except MergelineError as error:
        return problem("MLflow", str(error), "see the message")
    shown, database = without_secrets(uri), sqlite_file(uri)
    if uri.startswith(SERVERS):
        answered = _server(uri)
        remedy = "start the server, or see that its port is open from here; runs go on without it and are mirrored later"
        return fine("MLflow", shown) if answered == "" else problem("MLflow", f"{shown}: {answered}", remedy)
    if database is None:
        return fine("MLflow", shown)
    if not database.exists():
        return fine("MLflow", f"{database}, which the first run makes")
    return _file(database)


def _server(uri: str) -> str:
    """What is wrong with it; empty where it is well."""
    import requests

    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS)
    except requests.RequestException as error:
        return without_secrets(f"does not answer ({type(error).__name__})")
    return "" if answer.ok else f"answers {answer.status_code}"


def _file(database: Path) -> Finding:
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=ANSWER_SECONDS)) as connection:
            runs = connection.execute("select count(*) from runs").fetchone()[0]
    except sqlite3.Error as error:
        return problem("MLflow", f"{database}: {error}", "move it aside; the next run makes a new one and mirrors what is stored")
    return fine("MLflow", f"{database}, {runs} runs")
