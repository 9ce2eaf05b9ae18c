"""A lock in an object store, for machines that share nothing else: an object that its holder writes anew every few seconds.

It is taken by a write that succeeds only where nothing is, or only in place of what was last seen. Who waits takes over once the object
has stayed the same for `Pace.takeover` seconds of its own clock, in which the store answered: no two machines' clocks are ever compared.
A holder whose machine is that of the one who waits, and whose process is gone, is not waited for.

A holder that was away for longer (paused, or cut off) finds its object replaced, and is told so by `check` before it makes its work known.
A store that is away for everybody takes the lock from nobody.
"""

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import psutil
from filelock import Timeout

from foundation.errors import ResourceError
from pipeline.objects.bucket import Bucket

FREE = b"free\n"
FREEING_SECONDS = 3.0
"""For a store that does not answer when a lock is given up: it is taken over in time anyway."""


@dataclass(frozen=True)
class Pace:
    """Seconds, the same for all who use a lock. `takeover` is long enough for several renewals, one of them with a question that hangs."""

    renew: float = 8.0
    takeover: float = 40.0
    ask: float = 1.0


PACE = Pace()


@dataclass
class Lease:
    """Held while its object is what this process last wrote."""

    bucket: Bucket
    name: str
    tag: str
    identity: str
    pace: Pace
    lost: bool = False
    closing: threading.Event = field(default_factory=threading.Event)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Renew now. ResourceError where another process has taken over: what was done under the lease must not be made known."""
        if not self.renew():
            raise ResourceError(
                f"{self.bucket.uri}/{self.name}: this process was away for longer than {self.pace.takeover:.0f} s "
                "and another one took over; run the same command again to go on from what that one made"
            )

    def renew(self, patience: float | None = None) -> bool:
        """Write the object anew; False once it is no longer this process's."""
        with self.turn:
            return self._put(_holder(self.identity), patience)

    def _put(self, content: bytes, patience: float | None) -> bool:
        """Write in place of what this process wrote last, or tried to last: it may have been written, and the answer lost."""
        if self.lost:
            return False
        tag = self.bucket.replace(self.name, content, self.tag, patience)
        if tag is None:
            found = self.bucket.read(self.name, patience)
            if found is not None and _told(found.content).get("holder") == self.identity:
                tag = self.bucket.replace(self.name, content, found.tag, patience)
        self.tag, self.lost = tag or self.tag, tag is None
        return not self.lost

    def keep(self) -> None:
        """Renew until told to close; a store that does not answer is asked again as soon as can be."""
        pause = self.pace.renew
        while not self.closing.wait(pause):
            try:
                if not self.renew(patience=0):
                    return
                pause = self.pace.renew
            except ResourceError:
                pause = min(self.pace.ask, self.pace.renew)

    def free(self) -> None:
        """Give it up: the next to come takes it at once. If the store does not answer, it is taken over in time."""
        with self.turn, suppress(ResourceError):
            self._put(FREE, FREEING_SECONDS)


@contextmanager
def held(bucket: Bucket, name: str, wait: bool = True, pace: Pace | None = None) -> Iterator[Lease]:
    """Hold the lock `name`; filelock's Timeout where somebody else does and one is not to `wait`."""
    lease = _take(bucket, name, wait, pace or PACE)
    keeper = threading.Thread(target=lease.keep, daemon=True, name=f"lease {name}")
    keeper.start()
    try:
        yield lease
    finally:
        lease.closing.set()
        keeper.join()
        lease.free()


def _take(bucket: Bucket, name: str, wait: bool, pace: Pace) -> Lease:
    """Ask until it is had. Time between two answers (the store was away, or this process) does not count against the holder."""
    identity = uuid.uuid4().hex
    seen, since, answered = "", 0.0, time.monotonic()
    while True:
        found = bucket.read(name)
        now = time.monotonic()
        away, answered = now - answered > pace.renew, now
        if found is None:
            tag = bucket.create(name, _holder(identity))
        else:
            if found.tag != seen or away:
                seen, since = found.tag, now
            takes = found.content == FREE or now - since > pace.takeover or _is_dead(found.content)
            tag = bucket.replace(name, _holder(identity), found.tag) if takes else None
        if tag is not None:
            return Lease(bucket, name, tag, identity, pace)
        if not wait:
            raise Timeout(f"{bucket.uri}/{name}")
        time.sleep(pace.ask)


def _holder(identity: str) -> bytes:
    """Who holds it; the number makes each writing another content, hence another tag."""
    told = {"host": platform.node(), "pid": os.getpid(), "processes": _processes(), "holder": identity, "beat": uuid.uuid4().hex}
    return (json.dumps(told, sort_keys=True) + "\n").encode()


def _told(content: bytes) -> dict[str, object]:
    """What a holder wrote; nothing where something else lies there."""
    try:
        told = json.loads(content)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _is_dead(content: bytes) -> bool:
    """Whether the holder's process numbers are those of this machine, and its own is gone. False where that cannot be known."""
    told = _told(content)
    pid = told.get("pid")
    if not _processes() or told.get("processes") != _processes() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError, psutil.Error):  # another user's, of whom nothing is seen here
        return False


@lru_cache
def _processes() -> str:
    """This boot of this machine, and whose process numbers are seen here (a container has its own); empty where it cannot be told."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
