"""A stage's checkpoints lie in the object store as soon as they are whole: a worker on another machine goes on from the newest."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from foundation.errors import Interrupted
from foundation.files import directory_manifest
from pipeline.graph.perform import perform
from pipeline.objects.bucket import Bucket, open_bucket
from pipeline.objects.marker import mark
from pipeline.objects.presence import Parts, Presence, presence
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


def stage_files(place: Path, uri: str) -> StageFiles:
    """Of a step that takes up nothing, on the machine whose disk is `place`."""
    store = opened(place, uri)
    return StageFiles(Presence(store, "learn-1"), store.root / "learn-1" / "work" / "checkpoints")


def checkpoint(files: StageFiles, step: int) -> Path:
    """A whole checkpoint on that machine, with a file whose name comes after the manifest's."""
    place = files.work / f"checkpoint-{step}"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(bytes([step]) * 100)
    (place / "trainer_state.json").write_text("{}")
    seal(place, STAGE)
    return place


def put_there(files: StageFiles, place: Path) -> None:
    """Put a checkpoint into the object store, and remove what is older there."""
    (files.presence.directory / "history.jsonl").write_text(place.name)
    with files.saving() as on_saved:
        on_saved(place)
        history = f"store/{files.presence.key}/work/beside/history.jsonl"  # comes last
        _until(lambda: (found := open_bucket(files.presence.mirror.uri).read(history)) and found.content.decode() == place.name)


def test_a_checkpoint_that_was_half_brought_is_brought_again(tmp_path: Path, objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is gone before the last file has come, whichever that is."""
    one, two = stage_files(tmp_path / "one", objects), stage_files(tmp_path / "two", objects)
    put_there(one, checkpoint(one, 1))
    bucket = open_bucket(objects)
    real, left = type(bucket).download, [0]

    def download(self: Bucket, name: str, path: Path, sha256: str | None = None) -> None:
        if not left[0]:
            raise Interrupted("this machine is gone")
        left[0] -= 1
        real(self, name, path, sha256)

    monkeypatch.setattr(type(bucket), "download", download)
    for count in range(4):  # the history, weights, state and manifest
        left[0] = count
        with pytest.raises(Interrupted):
            two.arrive()
        assert not (two.work / "checkpoint-1" / "manifest.json").exists()
        (two.presence.directory / "history.jsonl").unlink(missing_ok=True)
    left[0] = 99
    two.arrive()
    assert newest_whole(two.work, STAGE) == two.work / "checkpoint-1"


def test_a_checkpoint_that_was_damaged_here_is_brought_again(tmp_path: Path, objects: str) -> None:
    files = stage_files(tmp_path, objects)
    place = checkpoint(files, 1)
    put_there(files, place)
    (place / "model.safetensors").write_bytes(b"x" * 100)
    files.arrive()
    assert newest_whole(files.work, STAGE) == place


def test_a_checkpoint_that_is_damaged_there_is_taken_away(tmp_path: Path, objects: str) -> None:
    one, two = stage_files(tmp_path / "one", objects), stage_files(tmp_path / "two", objects)
    put_there(one, checkpoint(one, 1))
    bucket = open_bucket(objects)
    (name,) = (name for name in bucket.sizes() if name.endswith("model.safetensors"))
    bucket.write(name, b"x" * 100)
    two.arrive()
    assert newest_whole(two.work, STAGE) is None
    assert not bucket.sizes("store/learn-1/work/checkpoints")


def test_who_was_followed_does_not_remove_the_newer_checkpoint(tmp_path: Path, objects: str) -> None:
    late, successor = stage_files(tmp_path / "late", objects), stage_files(tmp_path / "successor", objects)
    put_there(successor, checkpoint(successor, 2))
    put_there(late, checkpoint(late, 1))
    three = stage_files(tmp_path / "three", objects)
    three.arrive()
    assert newest_whole(three.work, STAGE) == three.work / "checkpoint-2"
    put_there(successor, checkpoint(successor, 3))
    assert {name.split("/")[4] for name in open_bucket(objects).sizes("store/learn-1/work/checkpoints")} == {"checkpoint-3"}
