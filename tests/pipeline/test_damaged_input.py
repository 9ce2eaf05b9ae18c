"""A bit that flipped in a stored checkpoint is found when a step takes it up, though size and time are the same; the step is made again."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from foundation.errors import InputError
from pipeline import intact
from pipeline.graph.perform import perform
from pipeline.plan import needed
from pipeline.step import Outcome, Step, Work
from pipeline.steps.weights import pretrained
from pipeline.store import Store


@dataclass(frozen=True, eq=False, repr=False)
class Make(Step):
    """Writes a checkpoint of two files, the first its inputs' and its own text."""

    kind: ClassVar[str] = "make"
    text: str
    of: tuple[Step, ...] = ()

    def run(self, work: Work) -> Outcome:
        output = work.directory / "checkpoint"
        output.mkdir(exist_ok=True)
        below = [(work.checkpoint_of(step) / "model.safetensors").read_text() for step in self.of]
        (output / "model.safetensors").write_text("".join([*below, self.text]))
        (output / "config.json").write_text("{}")
        return Outcome(output)


@dataclass(frozen=True, eq=False, repr=False)
class Pick(Step):
    """Its checkpoint is its input's."""

    kind: ClassVar[str] = "pick"
    of: Step

    def run(self, work: Work) -> Outcome:
        return Outcome(work.checkpoint_of(self.of))


@dataclass(frozen=True, eq=False, repr=False)
class Score(Step):
    """Writes scores beside, and makes no checkpoint."""

    kind: ClassVar[str] = "score"
    of: Step

    def run(self, work: Work) -> Outcome:
        (work.directory / "scores.json").write_text((work.directory_of(self.of) / "checkpoint" / "model.safetensors").read_text())
        return Outcome()


@dataclass(frozen=True, eq=False, repr=False)
class Read(Step):
    """Reads scores."""

    kind: ClassVar[str] = "read"
    of: Step

    def run(self, work: Work) -> Outcome:
        return Outcome(metrics={"text": (work.directory_of(self.of) / "scores.json").read_text()})


def flip(path: Path, bit: int = 0) -> None:
    """Another bit in the first byte, all else as it was."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[0] ^= 1 << bit
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    intact._KNOWN.clear()  # another process comes later


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_is_found_and_the_step_is_made_again(tmp_path: Path, bit: int) -> None:
    store, first = Store(tmp_path), Make("a")
    second = Make("b", (first,))
    perform(first, store)
    path = store.directory(first) / "checkpoint" / "model.safetensors"
    flip(path, bit)
    with pytest.raises(
        InputError, match=rf"{first.key}/checkpoint/model.safetensors, made by {first.key}, is damaged.*run the same command"
    ):
        perform(second, store)
    assert list(needed([second], store)) == [first.key, second.key]
    assert perform(first, store).ran
    assert perform(second, store).ran
    assert (store.directory(second) / "checkpoint" / "model.safetensors").read_text() == "ab"
    assert sorted(each.name for each in store.directory(first).iterdir()) == ["checkpoint", "record.json"]


def test_a_checkpoint_that_was_only_picked_is_made_again_by_the_step_that_made_it(tmp_path: Path) -> None:
    store, first = Store(tmp_path), Make("a")
    pick = Pick(first)
    last = Make("b", (pick,))
    for step in (first, pick):
        perform(step, store)
    flip(store.directory(first) / "checkpoint" / "model.safetensors")
    with pytest.raises(InputError, match="is damaged"):
        perform(last, store)
    assert list(needed([last], store)) == [first.key, pick.key, last.key]


def test_what_a_measurement_wrote_is_held_against_its_record_too(tmp_path: Path) -> None:
    store, first = Store(tmp_path), Make("a")
    score = Score(first)
    for step in (first, score):
        perform(step, store)
    flip(store.directory(score) / "scores.json")
    with pytest.raises(InputError, match=r"scores.json.* is damaged"):
        perform(Read(score), store)


def test_a_base_outside_the_store_is_the_users_to_restore(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_text("a")
    store = Store(tmp_path / "store")
    step = pretrained(str(base), store.root / "digests.json")
    perform(step, store)
    flip(base / "model.safetensors")
    for _ in range(2):
        with pytest.raises(InputError, match=r"bring the checkpoint in .* back as it was"):
            perform(Make("b", (step,)), store)


def test_a_process_reads_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, first = Store(tmp_path), Make("a")
    perform(first, store)
    read: list[Path] = []
    real = intact.file_sha256
    monkeypatch.setattr(intact, "file_sha256", lambda path: read.append(path) or real(path))
    for text in "bcd":
        perform(Make(text, (first,)), store)
    assert sorted(path.name for path in read) == ["config.json", "model.safetensors"]
