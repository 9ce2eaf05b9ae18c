"""What a step took of its machine, as metrics of its run in MLflow: `system/…` over time, `throughput/…`, `time/…` and `memory/…` in sum.

MLflow shows keys that begin with `system/` on a page of their own. All carry the time stamps of the step's own files, so writing them
again adds nothing.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.graph.history import Point
from pipeline.graph.usage_files import Look, read_usage
from pipeline.store import Record
from pipeline.tracking.book import Metric

MOST = 400
"""Looks at one process that are shown, spread over all of them; the file keeps every one."""
SUMS = {"seconds": "time/seconds", "cpu_seconds": "time/cpu_seconds", "peak_memory_bytes": "memory/peak_bytes"} | {
    "gpu_peak_bytes": "memory/gpu_peak_bytes"
}


def usage_metrics(record: Record, stage: int = 0) -> list[Metric]:
    """All that a record and the files beside it tell of the machine; nothing where neither does. `stage`: the step of the sums."""
    looks = [Metric(key, value, look.time, look.number) for look in _shown(record.directory) for key, value in sorted(look.values.items())]
    told = record.content.get("usage", {})
    sums = {SUMS[name]: float(told[name]) for name in SUMS if name in told}
    sums |= {f"throughput/{name}": float(value) for name, value in sorted(told.get("throughput", {}).items())}
    return looks + [Metric(key, value, record.content["finished"], stage) for key, value in sums.items()]


def step_times(history: Iterable[Point]) -> Iterator[Metric]:
    """Seconds per optimizer step between each two points of a training's history, at the later one, as `time/step_seconds`."""
    before: Point | None = None
    for point in history:
        if before is not None and point.step > before.step:
            yield Metric("time/step_seconds", (point.time - before.time) / (point.step - before.step), point.time, point.step)
        if before is None or point.step > before.step:
            before = point


def _shown(directory: Path) -> Iterator[Look]:
    """The looks, at most MOST of each process's file, the first and the last among them."""
    files: dict[str, list[Look]] = {}
    for look in read_usage(directory):
        files.setdefault(look.role, []).append(look)
    for looks in files.values():
        every = -(-len(looks) // MOST)
        yield from (look for place, look in enumerate(looks) if place % every == 0 or place == len(looks) - 1)
