"""Where MLflow keeps its book: which addresses are taken, and how a new SQLite database is opened safely. Needs no MLflow to be asked."""

import logging
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock

from foundation.errors import ConfigError
from pipeline.tracking.opening import opened

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "GIT_PYTHON_REFRESH": "quiet",
}
SERVERS = ("http://", "https://")
ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""For whoever writes: a request that makes something, sent again by the client itself, could make it twice."""
DATABASES = ("sqlite:///", "postgresql", "mysql", "mssql")
SECRET_NAMES = ("PASSWORD", "TOKEN", "SECRET")
SHORTEST_SECRET = 6
"""A shorter one would take common words out of messages."""
AWAY = {
    "Connection refused": "connection refused",
    "NameResolutionError": "its host is not known",
    "timed out": "no answer in time",
    "RemoteDisconnected": "the connection broke off",
    "Connection reset": "the connection broke off",
}
"""What the client's long errors come to where the server is away."""
REASON = 300
"""Characters of an error that are kept."""


def tracking_uri(configured: str | None, workspace: Path) -> str:
    """The configured URI, else `MLFLOW_TRACKING_URI`, else an SQLite file in the workspace; ConfigError for what cannot hold a mirror."""
    uri = configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{workspace / 'mlflow.db'}"
    if not uri.startswith(SERVERS + DATABASES):
        origin = "tracking.uri" if configured else "MLFLOW_TRACKING_URI"
        raise ConfigError(
            f"{origin} is {without_password(uri)!r}, which is neither a tracking server (http://..., https://...) nor a database "
            f"(sqlite:////absolute/path/mlflow.db, postgresql://...); leave it out to keep an SQLite file in the workspace"
        )
    return uri


def without_password(text: str) -> str:
    """An address, or any text with addresses in it, without passwords: what is kept in files and repeated in messages still leads there.

    `postgresql://name:password@host/db` becomes `postgresql://name@host/db`, and parameters such as `?password=…` go.
    """
    text = re.sub(r"(?<=://)([^\s'\"@/:]*):[^\s'\"/]*@", r"\1@", text)
    if "://" not in text:
        text = re.sub(r":[^\s'\"/@]+@", "@", text)  # no whole address, but meant as one
    return re.sub(r"(?i)(?<=[?&])(password|passwd|sslpassword|token|secret)=[^&\s'\"]*&?", "", text)


def without_secrets(text: str) -> str:
    """An address, or any text with addresses in it, without user names and passwords, and without the values of secret variables."""
    text = re.sub(r"(?<=://)[^/\s'\"]*@", "", text)
    text = re.sub(r"(?i)((?:password|passwd|token|secret)=)[^&\s'\"]+", r"\1…", text)
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and any(word in name.upper() for word in SECRET_NAMES):
            text = text.replace(value, "…")
    return text


def reason_of(error: BaseException) -> str:
    """An error in one line, without secrets; a few words where it only says that nobody was reached."""
    for said, word in AWAY.items():
        if said in str(error):
            return word
    first = next(iter(str(error).strip().splitlines()), "")
    return without_secrets(f"{type(error).__name__}: {first}" if first else type(error).__name__)[:REASON]


def sqlite_file(uri: str) -> Path | None:
    """The database file of an SQLite URI, else None."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def sqlite_has_run(uri: str, run_id: str) -> bool:
    """Whether an SQLite tracking database holds that run, asked without loading MLflow."""
    path = sqlite_file(uri)
    if path is None or not path.exists():
        return False
    question = "select 1 from runs where run_uuid = ? and lifecycle_stage = 'active'"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(question, (run_id,)).fetchone() is not None
    except sqlite3.Error:
        return False


def open_client(uri: str) -> Any:
    """MLflow's client, which prints nothing. An SQLite file is opened under a lock, the client's making included: MLflow takes none.

    A new file is made under another name and renamed once its tables are all there: a process killed while MLflow makes them would leave a
    database that no MLflow can open again.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    from mlflow import MlflowClient

    for noisy in ("alembic", "mlflow"):  # after the import, which sets these levels itself
        logging.getLogger(noisy).setLevel(logging.WARNING)
    database = sqlite_file(uri)
    if database is None:
        return opened(uri, lambda: MlflowClient(tracking_uri=uri))
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        if not database.exists():
            new = database.with_name(f".{database.name}.new")
            for left in new.parent.glob(f"{new.name}*"):  # of a process that was killed
                left.unlink()
            MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments(max_results=1)
            new.rename(database)
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client
