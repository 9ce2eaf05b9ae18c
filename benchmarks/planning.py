"""Part "planning": plans of merges far larger than this machine, from headers over holes; and how evenly the work is cut.

Runs in a process of its own (`python -m benchmarks.planning DIRECTORY SHAPE`), which prints its result as JSON. The plan's check for free
disk is told that there is room: nothing is written.
"""

import heapq
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

from benchmarks.checkpoints import MODELS, SHAPES, make_headers
from benchmarks.contest import Contender, last_json, python, run
from mergers import Source, WeightedAverage, plan_merge, read_checkpoint

WORKERS = (2, 4, 16, 64)


def measure_planning(directory: Path, shapes: Sequence[str]) -> dict[str, Any]:
    """Shape -> seconds (in the plan, and of the whole process), memory, and the balance of its work."""
    found = {}
    for shape in shapes:
        make_headers(directory / f"headers-{shape}", SHAPES[shape])
        result = run(Contender(f"plan of {shape}", python("-m", "benchmarks.planning", directory, shape)), [])
        found[shape] = last_json(result.output) | {"process": result.wall, "anonymous": result.anonymous}
        shutil.rmtree(directory / f"headers-{shape}")
    return found


def plan_once(directory: Path, shape: str) -> dict[str, Any]:
    """Read the headers of three checkpoints and plan their average, down to the last work item."""
    began = time.monotonic()
    sources = [Source(model, read_checkpoint(directory / f"headers-{shape}" / model)) for model in MODELS]
    merger = WeightedAverage((0.2, 0.3, 0.5))
    with patch("mergers.plan.check_disk"):
        plan = plan_merge(merger, sources, directory / "out-plan")
    sizes = [item.nbytes for item in plan.items]
    seconds = time.monotonic() - began
    return {
        "seconds": seconds,
        "bytes": sum(source.checkpoint.nbytes for source in sources),
        "tensors": len(plan.tensors),
        "items": len(sizes),
        "largest": max(sizes) / mean(sizes),
        "workers": {str(count): balance(sizes, count) for count in WORKERS},
    }


def balance(sizes: Sequence[int], workers: int) -> float:
    """The most bytes that one of `workers` equally fast workers gets, over the mean: each takes the next item when it is free."""
    loads = [0] * workers
    for size in sizes:
        heapq.heapreplace(loads, loads[0] + size)
    return max(loads) / mean(loads)


if __name__ == "__main__":
    print(json.dumps(plan_once(Path(sys.argv[1]), sys.argv[2])))
