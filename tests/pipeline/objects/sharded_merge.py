"""A merge into several files, by Ray actors that put each of them into an object store, and the same merge in one process.

python sharded_merge.py DIRECTORY URI       # prints {"files", "alone", "there"} as JSON in the last line
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import save_file

from mergers import InProcess, Plan, Source, WeightedAverage, execute, plan_merge, read_checkpoint
from pipeline.graph.actors import carry_out
from pipeline.graph.cluster import connected
from pipeline.graph.perform import perform
from pipeline.objects.marker import mark
from pipeline.step import Outcome, Step, Work
from pipeline.store import Store


def planned(room: Path, output: Path) -> Plan:
    """Two sources of twenty tensors; an output of several files, in more work items than actors."""
    sources = []
    for seed in range(2):
        place = room / f"source-{seed}"
        if not place.exists():
            place.mkdir(parents=True)
            generator = torch.Generator().manual_seed(seed)
            tensors = {f"layer.{n}.weight": torch.randn(64, 64, generator=generator) for n in range(20)}
            save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
            (place / "config.json").write_text('{"model_type": "llama"}')
        sources.append(Source(f"s{seed}", read_checkpoint(place)))
    return plan_merge(WeightedAverage((0.25, 0.75)), sources, output, item_bytes=32 << 10, max_shard_size=100_000, replace=True)


@dataclass(frozen=True, eq=False, repr=False)
class Sharded(Step):
    """The merge, by two actors."""

    kind: ClassVar[str] = "sharded"
    room: str

    def run(self, work: Work) -> Outcome:
        return carry_out(planned(Path(self.room), work.directory / "checkpoint"), 2, work.progress)


def main(room: Path, uri: str) -> None:
    """Both merges; what the record says of the files, and what lies in the object store."""
    alone = execute(planned(room, room / "alone"), InProcess()).files
    mark(room / "store", uri)
    store, step = Store(room / "store"), Sharded(str(room))
    with connected(cpus=2):
        perform(step, store)
    record = store.record(step)
    assert record is not None
    assert store.mirror is not None
    there = store.mirror.bucket.sizes(f"store/{step.key}/{record.content['attempt']}/checkpoint")
    sizes = {name.rpartition("/")[2]: size for name, size in there.items()}
    print("\n" + json.dumps({"files": record.content["outputs"]["files"], "alone": alone, "there": sizes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
