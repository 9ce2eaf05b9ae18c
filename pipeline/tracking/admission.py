"""Whether MLflow lets this pipeline in, asked once before any work: with a wrong password nothing would ever be written.

A server that is down, slow or broken is no reason to stop: the work goes on without it. A server is asked without MLflow, which takes
seconds to import, but with the credentials that MLflow's client would send. Whatever it answers, and however slowly, nobody waits longer
than told or reads more than a page of it.
"""

import base64
import configparser
import json
import os
import queue
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from foundation.errors import ConfigError, ResourceError
from pipeline.tracking.addresses import SERVERS
from pipeline.tracking.backend import reason_of, sqlite_file, tracking_uri, without_secrets
from pipeline.tracking.opening import POSTGRES
from pipeline.tracking.schema import check_file, check_revision

if TYPE_CHECKING:
    from pipeline.config.experiment import Built

NAME, PASSWORD, TOKEN = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"
CERTIFICATE, OWN_CERTIFICATE = "MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH"
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
OTHER_WAYS = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")
"""Ways of showing who one is that only MLflow's client knows."""
CONNECT_SECONDS, ANSWER_SECONDS = 2, 5
"""What a server may take to be connected and to begin its answer; all of it, the look for its name included, may take their sum."""
READING_SECONDS = 20
"""What it may take where it is read from, and somebody waits for that alone."""
MOST_BYTES = 1 << 16
"""So much of an answer is read."""
API = "api/2.0/mlflow/experiments"
OPENED = "mergeline.opened"
SAID = 160
"""Characters of a refusal that are told."""
REFUSED = re.compile(r"password authentication failed|no password supplied|(role|database) \".*\" does not exist|no pg_hba.conf entry")
"""What PostgreSQL says when it will not let this one in, now or later; it may also say that it is starting up, or full."""


@dataclass(frozen=True)
class Answer:
    """What a server said to one request; `told`: as JSON, None for anything but an object. `sent`: with credentials."""

    status: int
    text: str
    told: dict[str, Any] | None
    sent: bool


def check_tracking(built: "Built", uri: str | None = None) -> str:
    """ConfigError if the MLflow of an experiment, or the one at `uri`, refuses it or cannot hold it. As `check_admission`."""
    tracking = built.config.tracking
    whole = tracking_uri(uri or tracking.uri, built.workspace, "--tracking" if uri else "tracking.uri")
    database = sqlite_file(whole)
    if database is not None:
        check_file(database)
    return check_admission(whole, tracking.experiment or built.config.name)


def check_admission(uri: str, experiment: str) -> str:
    """ConfigError if the MLflow at `uri` refuses this pipeline: no or wrong credentials, a host name it does not go by, no right to write.

    So is a server whose certificate is not trusted here, and a PostgreSQL with tables of another MLflow. At most two requests to a server
    (the second marks the experiment, if there is one, with a tag), or one connection to a PostgreSQL. Everything but a refusal counts as
    admitted. Gives what is wrong with a server that answers as no MLflow does, in words; empty where it is well, or away.
    """
    seconds = CONNECT_SECONDS + ANSWER_SECONDS
    if uri.startswith(SERVERS) and not any(os.environ.get(name) for name in OTHER_WAYS):
        return _within(seconds, lambda: _ask_server(uri, experiment)) or ""
    if uri.startswith(POSTGRES):
        _within(seconds, lambda: _ask_postgres(uri))
    return ""


def check_readable(uri: str) -> None:
    """ConfigError if the tracking server at `uri` does not let us read, ResourceError if it is away or is none. Writes nothing there."""
    if not uri.startswith(SERVERS) or any(os.environ.get(name) for name in OTHER_WAYS):
        return
    wrong = _within(READING_SECONDS, lambda: _read_server(uri))
    if wrong != "":
        raise ResourceError(
            f"no MLflow to read at {without_secrets(uri)}: {wrong or 'no answer in time'}; check the address, and that it runs"
        )


def _within(seconds: float, ask: Callable[[], str]) -> str | None:
    """What `ask` gives or raises; None if it has not come back by then: it is left to itself, as when a name is looked for in vain."""
    answers: queue.Queue[str | BaseException] = queue.Queue()

    def answer() -> None:
        try:
            answers.put(ask())
        except BaseException as error:
            answers.put(error)

    threading.Thread(target=answer, name="admission", daemon=True).start()
    try:
        answered = answers.get(timeout=seconds)
    except queue.Empty:
        return None
    if isinstance(answered, BaseException):
        raise answered
    return answered


def _ask_server(uri: str, experiment: str) -> str:
    base = f"{uri.rstrip('/')}/{API}"
    try:
        found = _request("GET", f"{base}/get-by-name?experiment_name={quote(experiment)}", uri, ANSWER_SECONDS)
        _check(found, uri, f"read the experiment {experiment!r}")
        if found.status == 200 and (number := _experiment_id(found)):
            told = {"experiment_id": number, "key": OPENED, "value": "true"}
            marked = _request("POST", f"{base}/set-experiment-tag", uri, ANSWER_SECONDS, told)
            _check(marked, uri, f"write to the experiment {experiment!r}")
            return ""
    except OSError:  # down or slow (as all errors of requests): it is tried again beside the work
        return ""
    return _no_mlflow(found, is_one=(found.told or {}).get("error_code") == "RESOURCE_DOES_NOT_EXIST")


def _experiment_id(found: Answer) -> str:
    """The id in an answer; empty where it has none."""
    experiment = (found.told or {}).get("experiment")
    number = experiment.get("experiment_id") if isinstance(experiment, dict) else None
    return number if isinstance(number, str) else ""


def _read_server(uri: str) -> str:
    try:
        found = _request("GET", f"{uri.rstrip('/')}/{API}/search?max_results=1", uri, READING_SECONDS)
    except OSError as error:
        return reason_of(error)
    _check(found, uri, "read its experiments")
    wrong = _no_mlflow(found, is_one=found.status == 200 and found.told is not None)
    return wrong or ("" if found.status == 200 else f"it answers {found.status}")


def _no_mlflow(found: Answer, is_one: bool) -> str:
    """What tells that an answer is none of MLflow's; empty where it may be one, or that of a server in trouble."""
    if is_one or found.status >= 500 or found.status == 429:
        return ""
    what = f"its answer has the status {found.status}"
    what += "" if found.status == 404 else " and is not what MLflow says" if found.told is not None else " and is no JSON"
    return f"{what} ({without_secrets(' '.join(found.text.split())[: SAID // 2]) or 'empty'})"


def _request(method: str, url: str, uri: str, seconds: float, content: dict[str, str] | None = None) -> Answer:
    """Ask once, and read a page at most. OSError where there is no answer; ConfigError for a certificate that is not trusted here."""
    import requests

    how: dict[str, Any] = {"timeout": (CONNECT_SECONDS, seconds), "headers": _credentials(), "json": content, **_certificates()}
    try:
        with requests.Session() as session, session.request(method, url, stream=True, **how) as answer:
            text = answer.raw.read(MOST_BYTES, decode_content=True).decode(errors="replace")
            sent = "Authorization" in answer.request.headers
            return Answer(answer.status_code, text, _object(text), sent)
    except Exception as error:
        if UNTRUSTED in str(error):
            raise ConfigError(
                f"the certificate of the tracking server {without_secrets(uri)} is not trusted here; name the file of the authority "
                f"that signed it by {CERTIFICATE}"
            ) from error
        raise error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}") from error


def _object(text: str) -> dict[str, Any] | None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _credentials() -> dict[str, str]:
    """Who we are, as MLflow's client says it: from the environment, then from `~/.mlflow/credentials`."""
    name, password = (os.environ.get(key) or _in_file(key) for key in (NAME, PASSWORD))
    token = os.environ.get(TOKEN)
    if name and password:
        return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}
    return {"Authorization": f"Bearer {token}"} if token else {}


def _certificates() -> dict[str, Any]:
    """Whom we trust and what we show. Given with each request: `requests` lets its own variables go before those of a session."""
    unchecked = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1")
    for name in (CERTIFICATE, OWN_CERTIFICATE):
        if (path := os.environ.get(name)) and not Path(path).exists():
            raise ConfigError(f"{name} names {path}, which is not there; correct it, or take it out of the environment")
    return {"verify": os.environ.get(CERTIFICATE) or not unchecked, "cert": os.environ.get(OWN_CERTIFICATE) or None}


def _in_file(key: str) -> str | None:
    config = configparser.ConfigParser(interpolation=None)
    config.read(Path("~/.mlflow/credentials").expanduser())
    return config.get("mlflow", key.lower(), fallback=None)


def _check(answer: Answer, uri: str, what: str) -> None:
    """ConfigError for a refusal. Credentials are not repeated, only where they belong."""
    shown, said = without_secrets(uri), without_secrets(" ".join(answer.text.split())[:SAID])
    if answer.status == 401:
        sent = "sent" if answer.sent else "not set"
        raise ConfigError(
            f"the tracking server {shown} does not know who this is (401, credentials: {sent}); set {NAME} and {PASSWORD} (or {TOKEN}) "
            f"to what it expects, or leave tracking.uri and MLFLOW_TRACKING_URI out to keep an SQLite file in the workspace"
        )
    if answer.status == 403:
        who = os.environ.get(NAME) or "this pipeline"
        raise ConfigError(
            f"the tracking server {shown} does not let {who} {what} (403: {said}); ask for the right EDIT, name another experiment "
            f"(tracking.experiment), or, if it is the host that it refuses, add its name to the server's --allowed-hosts"
        )


def _ask_postgres(uri: str) -> str:
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError
    from sqlalchemy.pool import NullPool

    try:
        with create_engine(uri, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS}).connect() as connection:
            found = connection.execute(text("select version_num from alembic_version")).scalar()
        check_revision(None if found is None else str(found), without_secrets(uri))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{without_secrets(uri)} needs the Python package {error.name}: pip install 'mergeline[servers]', "
            "or name a tracking server (http://..., https://...), which needs none here"
        ) from error
    except OperationalError as error:
        refusal = REFUSED.search(str(error.orig))
        if refusal is not None:
            raise ConfigError(
                f"{without_secrets(uri)} refuses: {refusal.group()}; check the address, and give the password by PGPASSWORD or in ~/.pgpass"
            ) from error
    except ArgumentError as error:
        raise ConfigError(f"{without_secrets(uri)} is no address of a database ({reason_of(error)}); check tracking.uri") from error
    except DatabaseError:
        return ""  # it has no tables yet: MLflow makes them
    return ""
