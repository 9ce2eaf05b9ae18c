"""A mirrored store where something goes wrong at the worst moment: a lost lease, a kill between two writes, a file that grows."""

import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from mirrored_step import Write, opened

from foundation.errors import InputError, ResourceError
from foundation.files import file_sha256
from pipeline.graph.perform import perform
from pipeline.objects.attempt import uploaded
from pipeline.objects.bucket import open_bucket
from pipeline.objects.presence import Presence
from pipeline.step import Outcome, Work
from pipeline.store import Store


def test_who_lost_the_lease_takes_away_nothing_of_its_successor(tmp_path: Path, objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that counts no more is replaced at the end, on condition. Removing it takes none: it might be the successor's by then."""
    step, late, quick, bucket = Write("a"), opened(tmp_path / "late", objects), opened(tmp_path / "quick", objects), open_bucket(objects)
    perform(step, late)
    outdated = bucket.read(f"store/{step.key}/record.json")
    bucket.remove([f"store/{step.key}/{late.record(step).content['attempt']}/checkpoint/text"])  # type: ignore[union-attr]
    real, woke = Write.run, []

    def run(self: Write, work: Work) -> Outcome:
        made = real(self, work)
        if not woke:
            woke.append(bucket.read(f"store/{step.key}/record.json"))
            bucket.write(f"locks/{step.key}", b"free\n")
            perform(self, quick)
        return made

    monkeypatch.setattr(Write, "run", run)
    with pytest.raises(ResourceError, match="another one took over"):
        perform(step, late := Store(late.root))
    assert woke == [outdated]
    found = opened(tmp_path / "there", objects).record(step)
    assert found is not None
    assert found.content == quick.record(step).content  # type: ignore[union-attr]
    assert perform(step, Store(late.root)).ran is False


def test_a_record_that_was_removed_by_hand_meanwhile_is_written_anew(tmp_path: Path, objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step, store = Write("a"), opened(tmp_path, objects)
    perform(step, store)
    attempt = store.record(step).content["attempt"]  # type: ignore[union-attr]
    open_bucket(objects).remove([f"store/{step.key}/{attempt}/checkpoint/text"])
    real = Write.run

    def run(self: Write, work: Work) -> Outcome:
        open_bucket(objects).remove([f"store/{step.key}/record.json"])
        return real(self, work)

    monkeypatch.setattr(Write, "run", run)
    assert perform(step, Store(store.root)).ran
    assert opened(tmp_path / "there", objects).why_not(step) is None


def test_what_a_killed_process_left_beside_its_record_is_removed(tmp_path: Path, objects: str) -> None:
    step, bucket = Write("a"), open_bucket(objects)
    perform(step, opened(tmp_path / "here", objects))
    before = bucket.sizes(f"store/{step.key}")
    for name in ("work/checkpoints/checkpoint-1/model.safetensors", "0123456789ab/checkpoint/text"):
        bucket.write(f"store/{step.key}/{name}", b"left")
    assert opened(tmp_path / "there", objects).record(step) is not None
    assert bucket.sizes(f"store/{step.key}") == before


def test_a_record_that_is_no_longer_the_one_there_is_not_taken_from_the_cache(tmp_path: Path, objects: str) -> None:
    """The step was made again, and whoever did so was killed before the first attempt's files were removed."""
    step, bucket = Write("a"), open_bucket(objects)
    perform(step, opened(tmp_path / "here", objects))
    before = {name: bucket.read(name) for name in bucket.sizes(f"store/{step.key}")}
    bucket.remove([f"store/{step.key}/record.json"])
    perform(step, opened(tmp_path / "there", objects))
    newer = bucket.sizes(f"store/{step.key}")
    for name, each in before.items():
        if not name.endswith("/record.json"):
            bucket.write(name, each.content)  # type: ignore[union-attr]
    found = Store(tmp_path / "here" / "store").record(step)
    assert found is not None
    assert found.content == opened(tmp_path / "there", objects).record(step).content  # type: ignore[union-attr]
    assert bucket.sizes(f"store/{step.key}") == newer


def test_a_log_that_grows_on_its_way_is_recorded_as_it_is_there(tmp_path: Path, objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, bucket, grown = tmp_path / "usage.jsonl", open_bucket(objects), []
    path.write_bytes(b"0" * (2 << 20))
    real = type(bucket).upload

    def upload(self: Any, source: Path, name: str) -> None:
        with open(source, "ab") as file:
            file.write(b"more\n" * (len(grown) < 2))
        grown.append(source)
        real(self, source, name)

    monkeypatch.setattr(type(bucket), "upload", upload)
    held = uploaded(bucket, path, "log")
    assert bucket.sizes() == {"log": held.size}
    assert held.sha256 == file_sha256(path)
    assert len(grown) == 3
    monkeypatch.setattr(type(bucket), "upload", lambda self, source, name: source.write_bytes(source.read_bytes() + b"1"))
    with pytest.raises(ResourceError, match=f"{path} grew each of the 5 times"):
        uploaded(bucket, path, "log")


def test_what_workers_left_on_their_node_is_removed_once_their_step_is_done(tmp_path: Path, objects: str) -> None:
    """Checkpoints of a stage, which are large; who ended the stage was on another node."""
    done, running, outdated, next_step = Write("a"), Write("b"), Write("c"), Write("d")
    here, node = opened(tmp_path / "here", objects), opened(tmp_path / "node", objects)
    perform(done, here)
    perform(outdated, here)
    attempt = here.record(outdated).content["attempt"]  # type: ignore[union-attr]
    open_bucket(objects).remove([f"store/{outdated.key}/{attempt}/checkpoint/text"])
    left = [node.directory(step) / "work" for step in (done, running, outdated)]
    for work in left:
        (work / "checkpoints").mkdir(parents=True)
    Presence(Store(node.root), next_step.key).arrive()
    assert [work.exists() for work in left] == [False, True, True]
    assert (node.directory(next_step) / "work").exists()


def test_who_reads_what_was_made_again_meanwhile_is_told(tmp_path: Path, objects: str) -> None:
    step, bucket = Write("a"), open_bucket(objects)
    perform(step, opened(tmp_path / "here", objects))
    there = opened(tmp_path / "there", objects)
    record = there.record(step)
    assert record is not None
    bucket.remove([f"store/{step.key}/record.json"])
    perform(step, opened(tmp_path / "here", objects))
    with pytest.raises(InputError, match=f"is gone; {step.key} was made again meanwhile: run the same command again"):
        there.take_up(record, whole=False)
    perform(Write("b", (step,)), Store(there.root))


def test_what_a_killed_process_had_half_brought_is_removed(tmp_path: Path, objects: str) -> None:
    step = Write("a")
    perform(step, opened(tmp_path / "here", objects))
    there = opened(tmp_path / "there", objects)
    half, other = (there.directory(step) / "checkpoint" / name for name in (".text.01234567.tmp", ".other.01234567.tmp"))
    half.parent.mkdir(parents=True)
    half.write_text("half")
    other.write_text("not of a file that is brought")
    perform(Write("b", (step,)), there)
    assert sorted(path.name for path in half.parent.iterdir()) == [other.name, "large", "text"]


def test_what_others_have_laid_there_is_no_step(tmp_path: Path, objects: str) -> None:
    """Consoles of object stores make an empty object for what they show as a folder."""
    step, bucket = Write("a"), open_bucket(objects)
    perform(step, opened(tmp_path / "here", objects))
    for name in ("store/notes", f"store/{step.key}"):
        bucket.write(name, b"")
    for name in ("store/", f"store/{step.key}/"):
        address = f"{os.environ['AWS_ENDPOINT_URL']}/{objects.removeprefix('s3://')}/{name}"
        urllib.request.urlopen(urllib.request.Request(address, method="PUT", data=b""), timeout=10).close()
    there = opened(tmp_path / "there", objects)
    there.look()
    assert there.why_not(step) is None
    assert there.why_not(Write("b")) == "never run"
    assert Store(tmp_path / "here" / "store").why_not(step) is None
