"""What a store has in an object store: the records that decide, the files that all nodes take from there, and the way there and back.

    store/<key>/record.json                 written last, and only where there is none that counts: the step is done
    store/<key>/<attempt>/<relative file>   what the step's directory held; a new attempt for every execution, nothing is overwritten
    store/<key>/work/<relative file>        what an interrupted execution goes on from, until the record is there
    locks/<key>                             held while a step is performed (`lease.py`)

The store's own directory (`pipeline/store.py`) is a cache of this on each node. Nothing here knows steps.
"""

import errno
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from foundation.errors import InputError, MergelineError, ResourceError
from foundation.files import write_json_atomic
from pipeline.intact import damaged, known_as
from pipeline.objects.asking import ANSWERED
from pipeline.objects.attempt import AT_ONCE, Attempt, Held, held_in, is_other, is_small, lacking
from pipeline.objects.bucket import Bucket, open_bucket, remove_halves
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
        self._outdated: dict[str, str] = {}
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
            _, key, relative = [*name.split("/", 2), ""][:3]
            if relative:
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
        if here is not None and here["objects"] and not lacking(here, names) and not _others(names, here["attempt"]):
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
            for name in missing:
                remove_halves(self.root / key / name)
            try:
                with ThreadPoolExecutor(AT_ONCE) as pool:
                    list(pool.map(lambda name: self._download(key, content["attempt"], name, wanted[name]), missing))
            except InputError as error:
                raise InputError(f"{error}; {self._advice(key, content['attempt'])}") from error
            except OSError as error:
                raise self._full(error, key, sum(wanted[name].size for name in missing)) from error

    def _advice(self, key: str, attempt: str) -> str:
        """What to do where a file of an attempt cannot be had."""
        now = self._read(key)
        if now is not None and now.get("attempt") != attempt:
            return f"{key} was made again meanwhile: run the same command again"
        return f"remove {self.uri}/store/{key}/{RECORD}, and the step is made again"

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
        """Name the attempt that begins. A record that is there counts no more: it stays until the new one takes its place.

        Whoever loses the lease while it is removed would remove what its successor has made.
        """
        found = self.bucket.read(f"store/{key}/{RECORD}") if RECORD in self.names(key) else None
        self._outdated[key] = found.tag if found is not None else ""
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
        kept = self._publish(key, content)
        self.tidy(key, kept)
        self.done(key, kept)

    def _publish(self, key: str, content: dict[str, Any]) -> dict[str, Any]:
        """Write the record where there is none, or in place of the one that counted no more; gives the one that is there then."""
        text = (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
        name, outdated = f"store/{key}/{RECORD}", self._outdated.pop(key)
        made = bool(outdated) and self.bucket.replace(name, text, outdated) is not None
        made = made or self.bucket.create(name, text) is not None  # also where somebody has removed the other by hand
        self.forget(key)
        kept = json.loads(text) if made else self._read(key)
        if kept is None:
            raise ResourceError(f"{self.uri}/{name} was removed at the moment it was written; run the same command again")
        return dict(kept)

    def tidy(self, key: str, content: Mapping[str, Any]) -> None:
        """Remove what the record of a step that is done does not name: other attempts, and what an interrupted one would have gone on from.

        Done by whoever made the record, or, where that one was killed, by who sees it next. Rubbish does no harm, so that whoever may not
        remove it, or cannot now, goes on.
        """
        with suppress(MergelineError):
            rubbish = _others(self.names(key), content["attempt"])
            if rubbish and (self._read(key) or {}).get("attempt") == content["attempt"]:
                self.bucket.remove(f"store/{key}/{name}" for name in rubbish)
                self._own.pop(key, None)

    def tidy_here(self, own: str) -> None:
        """Remove what workers of finished steps have left on this node's disk to go on from; whoever ended the steps was on another node.

        `own`: the step that is performed.
        """
        for work in sorted(self.root.glob(f"*/{WORK}")):
            key = work.parent.name
            with suppress(MergelineError, Timeout):  # held by a process of this node that has not seen yet that it is done
                content = None if key == own else self.content(key)
                if content is not None and not lacking(content, self.names(key)):
                    with FileLock(self.root / "locks" / f"{key}.lock", timeout=0):
                        shutil.rmtree(work, ignore_errors=True)


def _others(names: Mapping[str, int], attempt: str) -> list[str]:
    return [name for name in names if is_other(name, attempt)]


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
