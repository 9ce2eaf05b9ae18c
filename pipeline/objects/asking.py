"""Questions to an object store: put again while it does not answer, and told in one sentence where they fail.

Small ones are not repeated by the library: whoever writes on a condition has to know that an answer may have been lost. A store that has
never answered is given up within seconds, since its URI may be wrong; one that has is waited for.
"""

import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

from foundation.errors import ResourceError

CONNECT_SECONDS, SMALL_SECONDS, STALLED_SECONDS, LARGE_SECONDS = 5, 12, 30, 3600
"""For a connection, for a small object, for the next bytes of a large one, for all of it (or for one part of it on its way there)."""
FIRST_SECONDS, PATIENCE_SECONDS = 3.0, 45.0
"""How long a store is asked again before its first answer, and after it."""
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
PART_RETRIES = 4

ANSWERED: set[str] = set()
"""The stores that have answered this process, or the one that sent it its work."""

T = TypeVar("T")


class NoSuchBucket(ResourceError):
    """The store answers, and has no such bucket."""


@dataclass
class Asking:
    """This process's two connections to the store of a URI."""

    uri: str
    for_small: Any
    for_large: Any

    def small(self, what: str, ask: Callable[[Any], T], patience: float | None = None) -> T:
        """What `ask` gives of a connection that repeats nothing by itself and waits for seconds."""
        return self._ask(what, ask, self.for_small, patience)

    def large(self, what: str, ask: Callable[[Any], T]) -> T:
        """What `ask` gives of a connection that repeats parts by itself and waits as long as bytes come. `ask` may be called again."""
        return self._ask(what, ask, self.for_large, None)

    def _ask(self, what: str, ask: Callable[[Any], T], connection: Any, patience: float | None) -> T:
        """FileNotFoundError and the two refusals of a conditional write go through; all else that the library raises is a ResourceError."""
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        began, pause = time.monotonic(), PAUSE_SECONDS
        while True:
            try:
                answer = ask(connection)
                ANSWERED.add(self.uri)
                return answer
            except (AlreadyExistsError, PreconditionError):
                ANSWERED.add(self.uri)
                raise
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error) or "NoSuchBucket" in repr(error) or "ContainerNotFound" in str(error):
                    self._tell(what, error)
                ANSWERED.add(self.uri)
                raise
            except (BaseError, PermissionError, ValueError) as error:
                seconds = patience if patience is not None else PATIENCE_SECONDS if self.uri in ANSWERED else FIRST_SECONDS
                if not _passes(error) or time.monotonic() - began + pause > seconds:
                    self._tell(what, error)
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _tell(self, what: str, error: BaseException) -> NoReturn:
        why, remedy = _reason(error)
        raised = NoSuchBucket if why == NO_BUCKET else ResourceError
        raise raised(f"could not {what} in {self.uri}: {why}; {remedy}") from None  # the library's text has many lines, and URLs


@lru_cache
def asking(uri: str) -> Asking:
    """The connections, once per process. Plain HTTP only where the environment names such an endpoint."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise ResourceError(f"{uri} needs the package obstore here; pip install 'mergeline[objects]' on every node") from None
    endpoint = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), "")
    common: dict[str, Any] = {"allow_http": endpoint.startswith("http://"), "connect_timeout": f"{CONNECT_SECONDS}s"}
    small: Any = {**common, "timeout": f"{SMALL_SECONDS}s"}
    large: Any = {**common, "timeout": f"{LARGE_SECONDS}s", "read_timeout": f"{STALLED_SECONDS}s"}
    never: Any = {"max_retries": 0}
    parts: Any = {"max_retries": PART_RETRIES}
    try:
        return Asking(
            uri,
            from_url(uri, client_options=small, retry_config=never),
            from_url(uri, client_options=large, retry_config=parts),
        )
    except (BaseError, ValueError) as error:
        why, remedy = _reason(error)
        raise ResourceError(f"{uri} cannot be opened: {why}; {remedy}") from None


NO_BUCKET = "there is no such bucket"
CREDENTIALS = "check this node's credentials (its environment or role) and what they may do there"


def _reason(error: BaseException) -> tuple[str, str]:
    """What went wrong, in one line without URLs, and what to do."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    text, code = f"{error}\n{error!r}", _code(error)
    status = re.search(r"status code: (\d+)", text)
    told = f" ({code})" if code else f" ({status[1]})" if status else ""
    if "NoSuchBucket" in text or "ContainerNotFound" in text:
        return NO_BUCKET, "make it, or correct the URI"
    if re.search(r"PermanentRedirect|AuthorizationHeaderMalformed|[Rr]eceived redirect without LOCATION", text):
        return "the bucket is in another region", "set AWS_REGION to the bucket's on every node"
    if re.search(r"169\.254\.169\.254|metadata\.google|CredentialsProvider|[Mm]etadata endpoint|instance credentials", text):
        return "this node has no credentials for it", CREDENTIALS
    if code in SKEWED:
        return f"this machine's clock is wrong{told}", "set it by a time server (NTP): a request is signed with its time"
    refused = isinstance(error, (PermissionDeniedError, UnauthenticatedError, PermissionError))
    if refused or (status and status[1] in ("401", "403")) or code in STALE:
        return f"access is denied{told}", CREDENTIALS
    if status:
        return f"the store answers with an error{told}", "look at the store, and run again"
    if re.search(r"HTTP error|error sending request|timed out|[Cc]onnect", text):
        return "the store does not answer", "check the network and the endpoint (AWS_ENDPOINT_URL, if it is set)"
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    plain = re.sub(r"^Generic \w+ error: ", "", re.sub(r"\w+://\S+", "…", first))
    return plain[:200], "check the URI and this node's environment"


SKEWED = ("RequestTimeTooSkewed", "RequestExpired")
"""Answers to a request whose time of signing is not now: S3 takes a quarter of an hour."""
STALE = ("ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch")
"""Answers with status 400 or 403 that speak of the credentials."""
PASSING = ("RequestTimeout",)
"""Answers with status 400 after which the same request may be put again: it came too slowly."""


def _code(error: BaseException) -> str:
    """What the store calls the error; empty where it has no word for it."""
    found = re.search(r"<Code>\s*([A-Za-z0-9.]+)\s*</Code>", f"{error}\n{error!r}")
    return found[1] if found else ""


def _passes(error: BaseException) -> bool:
    """Whether the same question may be answered a little later: no answer, or one that says so."""
    from obstore.exceptions import GenericError

    status = re.search(r"status code: (\d+)", str(error))
    passing = status is None or status[1] in ("408", "409", "429") or status[1].startswith("5") or _code(error) in PASSING
    return isinstance(error, GenericError) and passing
