"""Ray's client of a job server, with an end to every request: its own have none, and a tunnel that hangs would hold it for ever."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from ray.job_submission import JobSubmissionClient

from foundation.errors import ResourceError

WAIT_SECONDS = 0.5
CONNECT_SECONDS = 10.0
SILENT_SECONDS = 30.0
"""So long a server may say nothing."""
WHOLE_SECONDS = 120.0
"""So long an answer may take in all, byte by byte."""
SEND_SECONDS = 600.0
"""So long the code may be on its way."""


class Late(ConnectionError):
    """A server did not answer in time."""


class BoundedClient(JobSubmissionClient):
    """A `JobSubmissionClient` whose requests end: with an answer, an error, or `Late`. It follows no redirection."""

    def _do_request(self, method: str, endpoint: str, *, data: Any = None, json_data: Any = None, **others: Any) -> Any:
        def ask() -> Any:
            given = {"timeout": (CONNECT_SECONDS, SILENT_SECONDS), "allow_redirects": False, **others}
            return ask_ray(method, endpoint, data=data, json_data=json_data, **given)

        ask_ray = super()._do_request
        answer = within(WHOLE_SECONDS if data is None else SEND_SECONDS, ask)
        if 300 <= answer.status_code < 400:
            raise elsewhere(self._address, answer.headers.get("Location", ""))
        return answer


def within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` gives; `Late` if that takes longer. It runs in a thread, which is left alone then; a signal is answered meanwhile."""
    answers: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()

    def run() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True, name="request").start()
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer, error = answers.get(timeout=max(0.0, min(WAIT_SECONDS, deadline - time.monotonic())))
            break
        except queue.Empty:
            if time.monotonic() >= deadline:
                raise Late(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    return answer


def elsewhere(address: str, location: str) -> ResourceError:
    """A server that sends whoever asks to another address, as one does that wants a login first."""
    from pipeline.tracking.backend import without_secrets

    return ResourceError(
        f"{address} answers, but sends whoever asks to {without_secrets(location) or 'another address'}: a login or another address is "
        "before the cluster; give the address of its job server itself, or a tunnel to the head (ssh -L 8265:127.0.0.1:8265 HEAD)"
    )
