"""A stage's checkpoints lie in the object store as soon as they are whole: a worker on another machine goes on from the newest."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from foundation.errors import Interrupted
from foundation.files import directory_manifest
from pipeline.graph.perform import perform
from pipeline.objects.bucket import open_bucket
from pipeline.objects.marker import mark
from pipeline.objects.presence import Parts, presence
from pipeline.objects.training import StageFiles
from pipeline.step import Outcome, Step, Work
from pipeline.store import Store
from trainers.checkpoints.milestones import milestone_manifest
from trainers.checkpoints.resume import newest_whole, seal, tell_saved, telling, write_manifest

STAGE = {"start": "it"}


@dataclass(frozen=True, eq=False, repr=False)
class Learn(Step):
    """Takes two steps, each with a checkpoint, and ends or is interrupted; its record says after which step it began."""

    kind: ClassVar[str] = "learn_slowly"
    steps: int

    def run(self, work: Work) -> Outcome:
        shared = presence()
        assert shared is not None
        files = StageFiles(shared, work.scratch / "checkpoints")
        files.arrive()
        found = newest_whole(files.work, STAGE)
        first = int(found.name.split("-")[1]) if found else 0
        bucket, key = open_bucket(shared.mirror.uri), self.key
        with files.saving() as on_saved, telling(on_saved):
            for step in range(first + 1, first + 3):
                place = files.work / f"checkpoint-{step}"
                place.mkdir(parents=True)
                (place / "model.safetensors").write_bytes(bytes([step]) * 2_000_000)
                (work.directory / "history.jsonl").write_text("{}\n" * step)
                seal(place, STAGE)
                _until(lambda step=step: f"store/{key}/work/beside/history.jsonl" in bucket.sizes(f"store/{key}/work"))  # type: ignore[misc]
            milestone = work.directory / "checkpoint-step-1"
            if not milestone.exists():
                milestone.mkdir()
                (milestone / "model.safetensors").write_bytes(b"1")
                write_manifest(milestone_manifest(files.work, 1), milestone, STAGE)
                tell_saved(milestone)
                _until(lambda: f"store/{key}/work/checkpoints/milestone-1.json" in bucket.sizes(f"store/{key}/work"))
            if first + 2 < self.steps:
                raise Interrupted("this machine is gone")
        output = work.directory / "checkpoint"
        output.mkdir()
        (output / "model.safetensors").write_bytes(b"done")
        made = directory_manifest(output)
        return Outcome(output, metrics={"began": first}, files=made, there=files.deliver(made))


def _until(reached: object) -> None:
    deadline = time.monotonic() + 30
    while not reached():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def opened(place: Path, uri: str) -> Store:
    mark(place / "store", uri)
    return Store(place / "store")


def test_another_machine_goes_on_from_the_newest_checkpoint(tmp_path: Path, objects: str) -> None:
    step = Learn(4)
    with pytest.raises(Interrupted):
        perform(step, opened(tmp_path / "one", objects))
    there = open_bucket(objects).sizes(f"store/{step.key}/work")
    assert opened(tmp_path / "two", objects).why_not(step) == "was interrupted, goes on from there"
    assert f"store/{step.key}/work/beside/checkpoint-step-1/model.safetensors" in there
    two = opened(tmp_path / "two", objects)
    perform(step, two)
    record = opened(tmp_path / "three", objects).record(step)
    assert record is not None
    assert record.metrics["began"] >= 1
    assert set(record.content["objects"]) == {"checkpoint/model.safetensors", "checkpoint-step-1/model.safetensors", "history.jsonl"}
    assert not open_bucket(objects).sizes(f"store/{step.key}/work")
    assert (two.directory(step) / "checkpoint-step-1" / "model.safetensors").read_bytes() == b"1"


@dataclass(frozen=True, eq=False, repr=False)
class Measure(Step):
    """Two parts, of which the first attempt makes one."""

    kind: ClassVar[str] = "measure_slowly"

    def run(self, work: Work) -> Outcome:
        shared = presence()
        assert shared is not None
        parts, paths = Parts(shared), [work.scratch / name for name in ("part-0", "part-1")]
        found = parts.found(paths)
        for path in found:
            parts.bring(path)
        if not found:
            paths[0].write_text("0")
            parts.put(paths[0])
            raise Interrupted("this machine is gone")
        (work.directory / "sum").write_text(paths[0].read_text())
        return Outcome(metrics={"found": len(found)})


def test_parts_that_were_measured_are_not_measured_again(tmp_path: Path, objects: str) -> None:
    with pytest.raises(Interrupted):
        perform(Measure(), opened(tmp_path / "one", objects))
    perform(Measure(), opened(tmp_path / "two", objects))
    record = opened(tmp_path / "three", objects).record(Measure())
    assert record is not None
    assert record.metrics == {"found": 1}
