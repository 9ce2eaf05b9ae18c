"""The job server of a Ray cluster: reached in seconds or refused with the reason, its errors put into words.

Ray's own client takes another address from the environment if there is one, which is settled here; its requests end (see `client`).
"""

import http.client
import logging
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from foundation.errors import ConfigError, ResourceError
from pipeline.tracking.backend import without_secrets

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

NETLOC = re.compile(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?")
DEFAULT = "http://127.0.0.1:8265"
ADDRESS = "RAY_API_SERVER_ADDRESS"
CONNECT_SECONDS = 10.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_READ = 1000
TOKEN = "~/.ray/auth_token"


def address_of(given: str | None) -> str:
    """The job server's URL, from the option, the environment, or Ray's default; ConfigError if it cannot be one."""
    if given is not None and not given.strip():
        raise ConfigError(f"--address is empty; give the head's dashboard, e.g. {DEFAULT}, or leave it out")
    text = given or os.environ.get(ADDRESS) or DEFAULT
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        bare = parts.scheme in ("http", "https") and parts.path in ("", "/") and not parts.query
        plain = bare and NETLOC.fullmatch(parts.netloc) is not None and parts.port != 0
    except ValueError:  # a bracket that is not closed, a port beyond 65535
        plain = False
    if text == "auto" or not plain:
        raise ConfigError(
            f"--address {without_secrets(text)} is not the address of a cluster's job server; give the head's dashboard, e.g. {DEFAULT}"
        )
    if parts.hostname in LOOPBACK:  # a proxy that this machine may use leads elsewhere
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(filter(None, (os.environ.get("NO_PROXY"), *LOOPBACK)))
    return f"{parts.scheme}://{parts.netloc}"


def connect(address: str) -> tuple["JobSubmissionClient", list[str]]:
    """A client of the job server, and what is worth knowing about it. ResourceError, within seconds, for whatever prevents it."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # before Ray is loaded, which reads it then
    os.environ[ADDRESS] = address  # Ray prefers this, then RAY_ADDRESS, to what it is given
    open_to_all = _asks_nobody(address)
    from pipeline.jobs.client import BoundedClient

    for module in ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(module).setLevel(logging.ERROR)  # what happens is said here
    with worded(address):
        client = BoundedClient(address)
    notes = []
    if open_to_all:
        notes.append("this cluster asks nobody for a token: whoever reaches its port can run code there; start it with RAY_AUTH_MODE=token")
    if address.startswith("http://") and urlsplit(address).hostname not in LOOPBACK:
        notes.append("the token goes to this address unencrypted; a tunnel (ssh -L 8265:127.0.0.1:8265 HEAD) keeps it to yourself")
    return client, notes


@contextmanager
def worded(address: str) -> Iterator[None]:
    """Put what Ray's client raises into words that tell what to do."""
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise ResourceError(_no_token(address) if "required" in str(error) else _other_token(address)) from error
    except (requests.exceptions.JSONDecodeError, requests.exceptions.HTTPError) as error:
        raise ResourceError(f"{_other_server(address)} ({first_line(error)})") from error
    except (ConnectionError, requests.exceptions.RequestException) as error:
        late = isinstance(error, requests.exceptions.Timeout) or "no answer within" in str(error) or "timed out" in str(error)
        raise ResourceError(_nobody(address, "it does not answer in time" if late else "the connection was lost")) from error
    except RuntimeError as error:
        if "Version check" in str(error):
            raise ResourceError(_other_server(address)) from error
        reason = str(error).strip(". \n").splitlines()[-1]  # of a traceback of Ray's, what was raised
        raise ResourceError(f"the job server at {address} refused: {without_secrets(reason)[:400]}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # an answer that is JSON, of another form than Ray's
        raise ResourceError(_other_server(address)) from error


def first_line(error: BaseException) -> str:
    """An error of another's in a line, without secrets."""
    return without_secrets(next(iter(str(error).strip().splitlines()), type(error).__name__))[:300]


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirection is an answer like any other."""

    def redirect_request(self, *_: object) -> None:
        return None


def _asks_nobody(address: str) -> bool:
    """Whether the server answers without a token; ResourceError if nothing answers in time, or something that is no job server."""
    from pipeline.jobs.client import Late, elsewhere, within

    try:
        status, headers, text = within(3 * CONNECT_SECONDS, lambda: _asked(f"{address}/api/jobs/"))
    except http.client.RemoteDisconnected as error:
        raise ResourceError(_nobody(address, "the connection was closed")) from error
    except http.client.HTTPException as error:  # such as the port of Ray's own protocol
        raise ResourceError(_other_server(address)) from error
    except (OSError, UnicodeError) as error:  # the last for a name that no host can have
        late = isinstance(error, TimeoutError | Late) or isinstance(getattr(error, "reason", None), TimeoutError)
        raise ResourceError(_nobody(address, "it does not answer in time" if late else getattr(error, "reason", error))) from error
    if 300 <= status < 400:
        raise elsewhere(address, headers.get("Location", ""))
    if status in (401, 403):
        if text.lstrip()[:1] == "<" or headers.get("WWW-Authenticate", "").lower().startswith("basic"):
            raise ResourceError(
                f"something before the cluster at {address} asks for a login of its own (HTTP {status}); use a tunnel to the head"
            )
        return False
    if status in (502, 503, 504):
        raise ResourceError(
            f"{address} answers {status}: what stands before the cluster does not reach it; is the cluster up? Try again then"
        )
    if status != 200 or text.lstrip()[:1] != "[":
        raise ResourceError(_other_server(address))
    return True


def _asked(url: str) -> tuple[int, Message, str]:
    """Status, headers and the beginning of what a server answers."""
    try:
        with urllib.request.build_opener(_Stay).open(url, timeout=CONNECT_SECONDS) as answer:
            return answer.status, answer.headers, answer.read(MOST_READ).decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read(MOST_READ).decode(errors="replace")


def _other_server(address: str) -> str:
    return f"{address} answers, but not as a Ray cluster's job server does; check --address"


def _nobody(address: str, reason: object) -> str:
    return (
        f"no job server answers at {address} ({reason}); is the cluster up, and the tunnel to its head open "
        "(ssh -L 8265:127.0.0.1:8265 HEAD, or `ray dashboard cluster.yaml`)?"
    )


def _no_token(address: str) -> str:
    return (
        f"the cluster at {address} asks for a token, and there is none here; copy the head's {TOKEN} to {TOKEN} (mode 600), "
        "or name its place in RAY_AUTH_TOKEN_PATH"
    )


def _other_token(address: str) -> str:
    return f"the cluster at {address} has another token than this machine; copy the head's {TOKEN} here, or set RAY_AUTH_TOKEN_PATH"
