"""What `doctor` asks of an object store: from every node whether it does what a workspace on it rests on, and how quickly.

A node never raises what it finds: it tells it in one sentence. All that is written lies below `doctor/` and is removed at the end.
"""

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from foundation.errors import MergelineError
from pipeline.doctor.findings import Finding, judge, on_nodes
from pipeline.objects.bucket import Bucket, open_bucket

FILE_BYTES = 12 << 20
"""Large enough to be written in two parts, which may need another permission than small objects."""
ROUND_TRIPS = 5
PACKAGE = "obstore"


@dataclass(frozen=True)
class Told:
    """What one node found. `package`: the library's version, empty if it is not there; `wrong`: why the store cannot be used.

    `unconditional`: a conditional write that took place although its condition did not hold; empty if all is well.
    """

    package: str
    wrong: str = ""
    unconditional: str = ""
    trip: float = 0.0  # seconds for a small object, the median
    up: float = 0.0  # bytes per second
    down: float = 0.0


def try_store(uri: str, place: str, name: str) -> Told:
    """Everything that a node can try by itself. Leaves an object that the others are to see."""
    try:
        package = version(PACKAGE)
    except PackageNotFoundError:
        return Told("")
    bucket = open_bucket(uri)
    try:
        bucket.write(_signed(place, name), name.encode())
        unconditional = _unconditional(bucket, f"{place}/condition of {name}")
        trip = statistics.median(_seconds_to_read(bucket, _signed(place, name)) for _ in range(ROUND_TRIPS))
        up, down = _speed(bucket, f"{place}/file of {name}")
        return Told(package, "", unconditional, trip, up, down)
    except MergelineError as error:
        return Told(package, str(error))


def unseen(uri: str, place: str, names: list[str]) -> list[str]:
    """Those of `names` whose objects are not read or not listed here, now."""
    bucket = open_bucket(uri)
    try:
        listed = bucket.sizes(place)
        return [name for name in names if _signed(place, name) not in listed or bucket.read(_signed(place, name)) is None]
    except MergelineError:
        return list(names)


def race(uri: str, place: str, name: str) -> bool:
    """Whether this node, of all that try, was the one to make an object."""
    try:
        return open_bucket(uri).create(f"{place}/race", name.encode()) is not None
    except MergelineError:
        return False


def clear(uri: str, place: str) -> str:
    """Remove what was tried with; what went wrong, empty if nothing is left."""
    bucket = open_bucket(uri)
    try:
        bucket.remove(bucket.sizes(place))
        return f"{place} is not removed" if bucket.sizes(place) else ""
    except MergelineError as error:
        return str(error)


def judge_package(told: Mapping[str, Told]) -> Finding:
    versions: dict[str, list[str]] = {}
    for name, each in told.items():
        versions.setdefault(each.package or "not installed", []).append(name)
    bad = {PACKAGE: ", ".join(f"{each} on {on_nodes(names)}" for each, names in sorted(versions.items()))}
    alike = len(versions) == 1 and "not installed" not in versions
    return judge(PACKAGE, {} if alike else bad, next(iter(versions), ""), "pip install -c constraints.txt -e '.[objects]' on every node")


def judge_access(told: Mapping[str, Told], uri: str) -> Finding:
    """Written, read, listed and removed by every node; how quickly, by the slowest."""
    bad = {name: each.wrong for name, each in told.items() if each.wrong}
    well = [each for each in told.values() if not each.wrong]
    good = ""
    if well:
        trip, up, down = max(each.trip for each in well), min(each.up for each in well), min(each.down for each in well)
        good = f"{uri}: {trip * 1e3:.0f} ms for a small object, {up / 1e6:.0f} MB/s there, {down / 1e6:.0f} MB/s back (the slowest)"
    return judge("object store", bad, good, "every node needs the same store, with credentials to write, read, list and remove there")


def judge_conditions(told: Mapping[str, Told], winners: list[str]) -> Finding:
    bad = {name: each.unconditional for name, each in told.items() if each.unconditional}
    if not bad and len(winners) != 1:
        bad["together"] = f"{len(winners)} of {len(told)} made one object that was not there ({on_nodes(winners) or 'none'})"
    remedy = "this store cannot hold a workspace: two runs could do the same step at once; use one that honours If-None-Match and If-Match"
    return judge("conditional writes", bad, f"refused where they must be; one of {len(told)} won", remedy)


def judge_seen_at_once(missed: Mapping[str, list[str]]) -> Finding:
    bad = {name: f"does not read or list what {on_nodes(writers)} wrote" for name, writers in missed.items() if writers}
    remedy = "all nodes need one store that shows at once what was written (the same endpoint and bucket, no cache between)"
    return judge("seen at once", bad, f"each of {len(missed)} reads and lists what each wrote", remedy)


def judge_removal(left: Mapping[str, str]) -> list[Finding]:
    """A finding only where something is left."""
    bad = {name: what for name, what in left.items() if what}
    return [judge("removal", bad, "", "let this user remove objects, and remove what lies below doctor/")] if bad else []


def _signed(place: str, name: str) -> str:
    return f"{place}/of {name}"


def _unconditional(bucket: Bucket, name: str) -> str:
    """The first conditional write that was not refused as it must be; empty if all were."""
    first = bucket.create(name, b"first")
    if first is None:
        return "an object could not be made where there is none"
    if bucket.create(name, b"second") is not None:
        return "an object was made where there is one"
    if (second := bucket.replace(name, b"third", first)) is None:
        return "an object could not be replaced although it was as it had been"
    if second == first or bucket.replace(name, b"fourth", first) is not None:
        return "an object was replaced that had changed"
    bucket.remove([name])
    return "" if bucket.read(name) is None else "an object that was removed is still read"


def _seconds_to_read(bucket: Bucket, name: str) -> float:
    began = time.monotonic()
    bucket.read(name)
    return time.monotonic() - began


def _speed(bucket: Bucket, name: str) -> tuple[float, float]:
    """Bytes per second there and back, for one file whose bytes are compared."""
    with tempfile.TemporaryDirectory(prefix="mergeline-doctor-") as directory:
        source, target = Path(directory) / "source", Path(directory) / "target"
        content = os.urandom(FILE_BYTES)
        source.write_bytes(content)
        began = time.monotonic()
        bucket.upload(source, name)
        there = time.monotonic()
        bucket.download(name, target, hashlib.sha256(content).hexdigest())
        back = time.monotonic()
    return FILE_BYTES / (there - began), FILE_BYTES / (back - there)
