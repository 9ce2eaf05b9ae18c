"""A job's log, followed from its beginning to its end, over connections that break, hang, or carry no stream at all.

Ray's client reads it in an event loop, where a signal may be swallowed: so the loop lives in a thread, and this one only waits.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from foundation.errors import ResourceError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

WAIT_SECONDS = 0.5
LOOK_SECONDS = 15.0
"""A log that is silent for so long: the server is asked whether the job still runs, since a connection may hang without a word."""
RENEW_SECONDS = 120.0
"""A log that is silent for so long is asked for again: its own connection may hang where others do not."""
POLL_SECONDS = 5.0
"""Between two looks where a stream cannot be had, as behind a proxy without web sockets."""
LOST_SECONDS = 60.0
"""So long a server may be out of reach before its job is given up from here."""


def follow(client: "JobSubmissionClient", submission: str) -> Iterator[str]:
    """Pieces of the job's log as they come, until the job has ended. ResourceError if the server is lost for a minute."""
    seen, lost = 0, 0.0
    while True:
        broken = False
        position = 0
        for piece in _once(client, submission):
            if isinstance(piece, Exception):
                broken = True
                break
            lost = 0.0
            new = piece[max(0, seen - position) :]
            position += len(piece)
            seen = max(seen, position)
            if new:
                yield new
        try:
            ended = client.get_job_status(submission).is_terminal()
            if broken or ended:  # what was written while the last piece was on its way
                rest = client.get_job_logs(submission)[seen:]
                seen += len(rest)
                yield rest
            if ended:
                return
            lost = 0.0
        except Exception as error:  # whatever HTTP brings: the server is away, and may come back
            lost = lost or time.monotonic()
            if time.monotonic() - lost > LOST_SECONDS:
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
                raise ResourceError(f"the cluster is out of reach ({reason}); job {submission} may run on") from error
        time.sleep(POLL_SECONDS if broken and not lost else WAIT_SECONDS)


def _once(client: "JobSubmissionClient", submission: str) -> Iterator[str | Exception]:
    """The log from its beginning, until it ends or the connection does, which is told as an exception; or until it is silent for long."""
    pieces: queue.Queue[str | Exception | None] = queue.Queue()
    loop = asyncio.new_event_loop()

    async def read() -> None:
        async for piece in client.tail_job_logs(submission):
            pieces.put(piece)

    reading = loop.create_task(read())

    def run() -> None:
        try:
            loop.run_until_complete(reading)
        except asyncio.CancelledError:
            pass
        except Exception as error:
            pieces.put(error)
        loop.close()
        pieces.put(None)

    threading.Thread(target=run, daemon=True, name="job log").start()
    try:
        yield from _until_silent(pieces, lambda: client.get_job_status(submission).is_terminal())
    finally:
        with suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(reading.cancel)


def _until_silent(pieces: "queue.Queue[str | Exception | None]", has_ended: Callable[[], bool]) -> Iterator[str | Exception]:
    """What is read, until the end, or a silence that has a reason: the job has ended, the server does not answer, or it lasts too long."""
    heard = looked = time.monotonic()
    while True:
        try:
            piece = pieces.get(timeout=WAIT_SECONDS)  # a signal is answered between two waits
        except queue.Empty:
            now = time.monotonic()
            if now - heard > RENEW_SECONDS:
                return
            if now - looked > LOOK_SECONDS:
                try:
                    if has_ended():
                        return
                except Exception as error:  # whatever HTTP brings
                    yield error
                looked = time.monotonic()
            continue
        if piece is None:
            return
        heard = looked = time.monotonic()
        yield piece
