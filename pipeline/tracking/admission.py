"""Whether MLflow lets this pipeline in, asked once before any work: with a wrong password nothing would ever be written.

A server that is down, slow or broken is no reason to stop: the work goes on without it. A server is asked without MLflow, which takes
seconds to import, but with the credentials that MLflow's client would send.
"""

import base64
import configparser
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from foundation.errors import ConfigError
from pipeline.tracking.backend import SERVERS, tracking_uri, without_secrets
from pipeline.tracking.opening import POSTGRES

if TYPE_CHECKING:
    from requests import Response

    from pipeline.config.experiment import Built

NAME, PASSWORD, TOKEN = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"
CERTIFICATE, UNTRUSTED = "MLFLOW_TRACKING_SERVER_CERT_PATH", "CERTIFICATE_VERIFY_FAILED"
OTHER_WAYS = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")
"""Ways of showing who one is that only MLflow's client knows."""
CONNECT_SECONDS, ANSWER_SECONDS = 2, 5
API = "api/2.0/mlflow/experiments"
OPENED = "mergeline.opened"
SAID = 160
"""Characters of a refusal that are told."""
REFUSED = re.compile(r"password authentication failed|no password supplied|(role|database) \".*\" does not exist|no pg_hba.conf entry")
"""What PostgreSQL says when it will not let this one in, now or later; it may also say that it is starting up, or full."""


def check_tracking(built: "Built", uri: str | None = None) -> None:
    """ConfigError if the MLflow of an experiment, or the one at `uri`, refuses it."""
    tracking = built.config.tracking
    check_admission(uri or tracking_uri(tracking.uri, built.workspace), tracking.experiment or built.config.name)


def check_admission(uri: str, experiment: str) -> None:
    """ConfigError if the MLflow at `uri` refuses this pipeline: no or wrong credentials, a host name it does not go by, no right to write.

    So is a server whose certificate is not trusted here. At most two requests to a server (the second marks the experiment, if there is
    one, with a tag), or one connection to a PostgreSQL. Everything but a refusal counts as admitted.
    """
    if uri.startswith(SERVERS) and not any(os.environ.get(name) for name in OTHER_WAYS):
        _ask_server(uri, experiment)
    elif uri.startswith(POSTGRES):
        _ask_postgres(uri)


def _ask_server(uri: str, experiment: str) -> None:
    import requests

    base, how = f"{uri.rstrip('/')}/{API}", {"timeout": (CONNECT_SECONDS, ANSWER_SECONDS), "headers": _credentials(), **_certificates()}
    with requests.Session() as session:
        try:
            found = session.get(f"{base}/get-by-name?experiment_name={quote(experiment)}", **how)
            _check(found, uri, f"read the experiment {experiment!r}")
            if found.ok:
                told = {"experiment_id": found.json()["experiment"]["experiment_id"], "key": OPENED, "value": "true"}
                marked = session.post(f"{base}/set-experiment-tag", json=told, **how)
                _check(marked, uri, f"write to the experiment {experiment!r}")
        except (requests.RequestException, ValueError, KeyError) as error:
            if UNTRUSTED in str(error):
                raise ConfigError(
                    f"the certificate of the tracking server {without_secrets(uri)} is not trusted here; name the file of the authority "
                    f"that signed it by {CERTIFICATE}"
                ) from error
            return  # down, slow, or not MLflow: it is tried again beside the work


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
    return {"verify": os.environ.get(CERTIFICATE) or not unchecked, "cert": os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")}


def _in_file(key: str) -> str | None:
    config = configparser.ConfigParser(interpolation=None)
    config.read(Path("~/.mlflow/credentials").expanduser())
    return config.get("mlflow", key.lower(), fallback=None)


def _check(answer: "Response", uri: str, what: str) -> None:
    """ConfigError for a refusal. Credentials are not repeated, only where they belong."""
    shown, said = without_secrets(uri), without_secrets(" ".join(answer.text.split())[:SAID])
    if answer.status_code == 401:
        sent = "sent" if "Authorization" in answer.request.headers else "not set"
        raise ConfigError(
            f"the tracking server {shown} does not know who this is (401, credentials: {sent}); set {NAME} and {PASSWORD} (or {TOKEN}) "
            f"to what it expects, or leave tracking.uri and MLFLOW_TRACKING_URI out to keep an SQLite file in the workspace"
        )
    if answer.status_code == 403:
        who = os.environ.get(NAME) or "this pipeline"
        raise ConfigError(
            f"the tracking server {shown} does not let {who} {what} (403: {said}); ask for the right EDIT, name another experiment "
            f"(tracking.experiment), or, if it is the host that it refuses, add its name to the server's --allowed-hosts"
        )


def _ask_postgres(uri: str) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import OperationalError
    from sqlalchemy.pool import NullPool

    try:
        create_engine(uri, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS}).connect().close()
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
