"""What a store has in an object store: the records that decide, the files that all nodes take from there, and the way there and back.

    store/<key>/record.json                 created last, and only if there is none: the step is done
    store/<key>/<attempt>/<relative file>   what the step's directory held; a new attempt for every execution, nothing is overwritten
    store/<key>/work/<relative file>        what an interrupted execution goes on from, until the record is there
    locks/<key>                             held while a step is performed (`lease.py`)

The store's own directory (`pipeline/store.py`) is a cache of this on each node. Nothing here knows steps.
"""

import errno
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from foundation.errors import InputError, MergelineError, ResourceError
from foundation.files import write_json_atomic
from pipeline.intact import damaged, known_as
from pipeline.objects.asking import ANSWERED
from pipeline.objects.attempt import AT_ONCE, Attempt, Held, held_in, is_small, lacking
from pipeline.objects.bucket import Bucket, open_bucket
from pipeline.objects.lease import Lease
from pipeline.objects.lease import held as leased
from pipeline.objects.marker import mark
from pipeline.record_file import checked_content, read_content

LOOK_SECONDS = 2.0
"""How long what was not there is taken to be still not there, outside a lock."""
WORK = "work/"
RECORD = "record.json"


class Mirror:
    """The object store behind the store at `root`. Picklable: another node opens it anew, with its own credentials.

    Its methods raise ResourceError where the object store does not answer or refuses.
    """

    def __init__(self, uri: str, root: Path) -> None:
        self.uri = uri
        self.root = root
        self.leases: dict[str, Lease] = {}
        self.attempts: dict[str, str] = {}
        self._done: dict[str, dict[str, Any]] = {}
        self._all: tuple[float, dict[str, dict[str, int]]] = (-LOOK_SECONDS, {})
        self._own: dict[str, tuple[float, dict[str, int]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self.uri, self.root, self.attempts)

    @property
    def bucket(self) -> Bucket:
        """Where it all lies."""
        return open_bucket(self.uri)

    def look(self) -> None:
        """Take in what all steps have there, with one question."""
        began = time.monotonic()
        found: dict[str, dict[str, int]] = {}
        for name, size in self.bucket.sizes("store").items():
            _, key, relative = name.split("/", 2)
            found.setdefault(key, {})[relative] = size
        self._all, self._own = (began, found), {}

    def names(self, key: str) -> dict[str, int]:
        """Relative name -> bytes of everything a step has there, as of at most LOOK_SECONDS ago."""
        for at, sizes in (self._own.get(key, (-LOOK_SECONDS, {})), (self._all[0], self._all[1].get(key, {}))):
            if time.monotonic() - at < LOOK_SECONDS:
                return sizes
        began = time.monotonic()
        found = self.bucket.sizes(f"store/{key}")
        sizes = {name.split("/", 2)[2]: size for name, size in found.items()}
        self._own[key] = began, sizes
        return sizes

    def forget(self, key: str) -> None:
        """Ask anew whether a step is done."""
        self._done.pop(key, None)
        self._own.pop(key, None)
        self._all[1].pop(key, None)
        self._all = (-LOOK_SECONDS, self._all[1])

    def content(self, key: str) -> dict[str, Any] | None:
        """A step's record, if there is one, as it is here or there; InputError where it is damaged."""
        if key in self._done:
            return self._done[key]
        names = self.names(key)
        if RECORD not in names:
            return None
        here = self.content_here(key)
        if here is not None and here["objects"] and not lacking(here, names):
            return here  # an attempt's files are there as long as its record is
        return self._read(key)

    def content_here(self, key: str) -> dict[str, Any] | None:
        """A step's record as this node has seen it."""
        path = self.root / key / RECORD
        try:
            content = read_content(path) if path.exists() else None
        except InputError:  # the cache is not the truth
            return None
        return content if content is not None and "attempt" in content else None

    def is_done(self, key: str) -> bool:
        """Whether this has seen that a step is done."""
        return key in self._done

    def done(self, key: str, content: dict[str, Any]) -> None:
        """Note that a step is done, for good, and put its record and small files on this node's disk."""
        if key in self._done:
            return
        here = self.content_here(key)
        if here != content:
            small = {name: each.sha256 for name, each in held_in(content).items() if is_small(name)}
            for name in damaged(self.root / key, small):  # of another attempt, of the same size
                (self.root / key / name).unlink(missing_ok=True)
        self.bring(key, content, small=True)
        if here != content:
            (self.root / key).mkdir(parents=True, exist_ok=True)
            write_json_atomic(self.root / key / RECORD, content)
        self._done[key] = content

    def by_key(self, key: str) -> dict[str, Any] | None:
        """A finished step's record, its small files brought here; None if it is not done. What was seen once is not asked for again."""
        content = self._done.get(key) or self.content_here(key) or self._read(key)
        if content is not None:
            self.done(key, content)
        return content

    def bring(self, key: str, content: Mapping[str, Any], below: str = "", small: bool = False) -> None:
        """Have a step's files on this node's disk: those below the directory `below` (else all), or only the small ones.

        InputError where one is gone or has other bytes than its record says.
        """
        wanted = {
            name: each
            for name, each in held_in(content).items()
            if (is_small(name) if small else not below or name.startswith(f"{below}/"))
        }
        if not self._missing(key, wanted):
            return
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / "locks" / f"{key}.bring.lock"):
            missing = self._missing(key, wanted)
            try:
                with ThreadPoolExecutor(AT_ONCE) as pool:
                    list(pool.map(lambda name: self._download(key, content["attempt"], name, wanted[name]), missing))
            except InputError as error:
                raise InputError(f"{error}; remove {self.uri}/store/{key}/{RECORD}, and the step is made again") from error
            except OSError as error:
                raise self._full(error, key, sum(wanted[name].size for name in missing)) from error

    def _download(self, key: str, attempt: str, name: str, each: Held) -> None:
        path = self.root / key / name
        self.bucket.download(f"store/{key}/{attempt}/{name}", path, each.sha256)
        known_as(path, each.sha256)

    def _missing(self, key: str, wanted: Mapping[str, Held]) -> list[str]:
        return [name for name, each in wanted.items() if not _has(self.root / key / name, each.size)]

    def _full(self, error: OSError, key: str, nbytes: int) -> BaseException:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return error
        return ResourceError(
            f"no room to bring {key} ({nbytes:,} bytes) to {self.root} ({error.strerror}); make room and run the same command again"
        )

    def _read(self, key: str) -> dict[str, Any] | None:
        name = f"store/{key}/{RECORD}"
        found = self.bucket.read(name)
        return None if found is None else checked_content(found.content, f"{self.uri}/{name}", f"{self.uri}/store/{key}")

    @contextmanager
    def held(self, key: str, wait: bool) -> Iterator[None]:
        """Hold a step against all other machines."""
        with leased(self.bucket, f"locks/{key}", wait) as lease:
            self.leases[key] = lease
            self.forget(key)
            try:
                yield
            finally:
                del self.leases[key]

    def begin(self, key: str) -> None:
        """Take away a record that counts no more, and name the attempt that begins."""
        if RECORD in self.names(key):
            self.leases[key].check()
            self.bucket.remove([f"store/{key}/{RECORD}"])
        self.forget(key)
        self.attempts[key] = uuid.uuid4().hex[:12]

    def attempt(self, key: str) -> "Attempt":
        """Where what is made now is put. Picklable: workers on other nodes put their files there themselves."""
        return Attempt(self.uri, key, self.attempts[key])

    def finish(self, key: str, content: dict[str, Any], files: Mapping[str, Path], there: Mapping[str, Held]) -> None:
        """Put `files` there beside those that workers have put `there`, then the record.

        Another's record counts where one was quicker, who took the step for abandoned: the bytes are the same.
        """
        attempt, below = self.attempt(key), content["outputs"]["checkpoint"]
        known = {f"{below}/{name}" if below else name: digest for name, digest in content["outputs"]["files"].items()}
        made = attempt.upload_all({name: path for name, path in files.items() if name not in there}, known) | dict(there)
        told = {name: asdict(made[name]) for name in sorted(made)}
        content = {**content, "attempt": attempt.name, "objects": told}
        self.leases[key].check()
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        first = self.bucket.create(f"store/{key}/{RECORD}", text.encode()) is not None
        self.forget(key)
        theirs = None if first else self._read(key)
        kept = theirs or json.loads(text)
        self._clear(key, kept["attempt"] if first else None, attempt.name)
        self.done(key, kept)

    def _clear(self, key: str, kept: str | None, own: str) -> None:
        """Remove what no record names: of this attempt alone where it came second, else of all others, and what they would have gone on
        from. Rubbish does no harm, so that a store that is away now is not waited for again."""
        try:
            names = [name for name in self.names(key) if name != RECORD]
            gone = [name for name in names if (name.split("/")[0] != kept if kept else name.startswith(f"{own}/"))]
            self.bucket.remove(f"store/{key}/{name}" for name in gone)
        except MergelineError:
            pass


def _has(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _opened(uri: str, root: Path, attempts: dict[str, str]) -> Mirror:
    """The mirror on another node, whose workspace is thereby known as one of `uri`. The store has answered whoever sent it here."""
    mark(root, uri)
    ANSWERED.add(uri)
    mirror = Mirror(uri, root)
    mirror.attempts = dict(attempts)
    return mirror
