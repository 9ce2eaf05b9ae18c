"""A job's log, followed from its beginning to its end, over broken connections.

Ray's client reads it in an event loop, where a signal may be swallowed: so the loop lives in a thread, and this one only waits.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from foundation.errors import ResourceError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

WAIT_SECONDS = 0.5
LOST_SECONDS = 60.0
"""So long a server may be out of reach before its job is given up from here."""


def follow(client: "JobSubmissionClient", submission: str) -> Iterator[str]:
    """Pieces of the job's log as they come, until the job has ended. ResourceError if the server is lost for a minute."""
    seen, lost = 0, 0.0
    while True:
        failure: Exception | None = None
        position = 0
        for piece in _once(client, submission):
            if isinstance(piece, Exception):
                failure = piece
                break
            lost = 0.0
            new = piece[max(0, seen - position) :]
            position += len(piece)
            seen = max(seen, position)
            if new:
                yield new
        try:
            if failure is None and client.get_job_status(submission).is_terminal():
                yield client.get_job_logs(submission)[seen:]  # what was written while the last piece was on its way
                return
        except Exception as error:  # whatever HTTP brings: the server is away, and may come back
            failure = error
        lost = 0.0 if failure is None else lost or time.monotonic()
        if lost and time.monotonic() - lost > LOST_SECONDS:
            raise ResourceError(
                f"the cluster is out of reach ({failure}); job {submission} may run on: submit the same again to see"
            ) from failure
        time.sleep(WAIT_SECONDS)


def _once(client: "JobSubmissionClient", submission: str) -> Iterator[str | Exception]:
    """The log from its beginning, until it ends or the connection does, which is told as an exception."""
    pieces: queue.Queue[str | Exception | None] = queue.Queue()

    async def read() -> None:
        async for piece in client.tail_job_logs(submission):
            pieces.put(piece)

    def run() -> None:
        try:
            asyncio.run(read())
        except Exception as error:
            pieces.put(error)
        pieces.put(None)

    threading.Thread(target=run, daemon=True, name="job log").start()
    while True:
        try:
            piece = pieces.get(timeout=WAIT_SECONDS)  # a signal is answered between two waits
        except queue.Empty:
            continue
        if piece is None:
            return
        yield piece
