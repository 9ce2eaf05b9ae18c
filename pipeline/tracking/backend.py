"""Where MLflow keeps its book: which addresses are taken, and how a new SQLite database is opened safely. Needs no MLflow to be asked."""

import errno
import glob
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock

from foundation.errors import ConfigError
from pipeline.tracking.addresses import SERVERS as SERVERS
from pipeline.tracking.addresses import SQLITE, check_address
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
ONCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""For whoever writes: a request that makes something, sent again by the client itself, could make it twice."""
SECRET_NAMES = ("PASSWORD", "TOKEN", "SECRET")
SHORTEST_SECRET = 6
"""A shorter one would take common words out of messages."""
AWAY = {
    r"Connection refused": "connection refused",
    r"NameResolutionError|getaddrinfo failed|Name or service not known": "its host is not known",
    r"No route to host|Network is unreachable": "there is no way to its host",
    r"timed out": "no answer in time",
    r"CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted here",
    r"\[SSL|SSLE|SSLError": "no TLS with it: is it http:// that it speaks?",
    r"BadStatusLine|BadHttpMessage|InvalidHeader|Invalid header": "what answers there does not speak HTTP: is it https:// that it speaks?",
    r"RemoteDisconnected|Connection broken|IncompleteRead": "the connection broke off",
    r"Connection reset|Broken pipe": "the connection broke off",
    r"Exceeded \d+ redirects": "it redirects without end",
    r"not in a valid JSON format|ParseError|JSONDecodeError": "what answers there is no MLflow",
    r"ENDPOINT_NOT_FOUND|error code 404 != 200": "it does not know this request: no MLflow, or an older one",
    r"too many (\d+) error responses": r"it answers \1",
    r"failed with error code (\d+) != 200": r"it answers \1",
    r"No space left on device|database or disk is full": "its disk is full",
    r"database is locked": "the database is locked by another process",
}
"""What the client's long errors come to where the server is away, or another than it should be: the first that is found in one."""
NEW_BYTES = 1 << 21
"""What MLflow's empty tables take, with some room."""
REASON = 300
"""Characters of an error that are kept."""


def tracking_uri(configured: str | None, workspace: Path, origin: str = "tracking.uri") -> str:
    """The configured URI, else `MLFLOW_TRACKING_URI`, else an SQLite file in the workspace; a file's path is made absolute.

    ConfigError for what cannot hold a mirror; `origin` is where the configured one stands.
    """
    if configured is not None and not configured.strip():
        raise ConfigError(f"{origin} is empty; name a tracking server or database, or leave it out to keep an SQLite file in the workspace")
    given = configured or os.environ.get("MLFLOW_TRACKING_URI")
    if not given:
        return f"{SQLITE}{workspace.absolute() / 'mlflow.db'}"
    check_address(given, origin if configured else "MLFLOW_TRACKING_URI", without_password(given))
    path = sqlite_file(given)
    return given if path is None else f"{SQLITE}{path.absolute()}"  # wherever its readers are


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
        if found := re.search(said, f"{type(error).__name__}: {error}"):
            return found.expand(word)
    first = next(iter(str(error).strip().splitlines()), "")
    return without_secrets(f"{type(error).__name__}: {first}" if first else type(error).__name__)[:REASON]


def sqlite_file(uri: str) -> Path | None:
    """The database file of an SQLite URI, else None."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


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

    A new file (or one that is empty) is made under another name and renamed once its tables are all there: a process killed while MLflow
    makes them would leave a database that no MLflow can open again.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    from mlflow import MlflowClient

    for noisy in ("alembic", "mlflow"):  # after the import, which sets these levels itself
        logging.getLogger(noisy).setLevel(logging.WARNING)
    database = sqlite_file(uri)
    if database is None:
        return opened(uri, lambda: MlflowClient(tracking_uri=uri))
    if database.exists() and not os.access(database.parent, os.W_OK):  # there is no room for a lock, and nothing to be made
        return MlflowClient(tracking_uri=uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        if not database.exists() or not database.stat().st_size:
            _make(database, lambda new: MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments(max_results=1))
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


def _make(database: Path, tables: Callable[[Path], object]) -> None:
    """Have a new database's `tables` made under another name. OSError where the disk is full: MLflow fails then with a word of its own."""
    new = database.with_name(f".{database.name}.new")
    for left in database.parent.glob(f"{glob.escape(new.name)}*"):  # of a process that was killed
        left.unlink()
    try:
        tables(new)
    except Exception as error:
        new.unlink(missing_ok=True)
        if (free := shutil.disk_usage(database.parent).free) < NEW_BYTES:
            raise OSError(errno.ENOSPC, f"No space left on device: a new database needs {NEW_BYTES:,} bytes, {free:,} are free") from error
        raise
    new.rename(database)
