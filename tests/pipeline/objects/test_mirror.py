"""A store behind which an object store lies: the record there decides, and a workspace is a cache that may be lost."""

import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from mirrored_step import Write, opened

from foundation import files
from foundation.errors import ConfigError, InputError, ResourceError
from pipeline.graph.perform import perform
from pipeline.objects.bucket import open_bucket
from pipeline.objects.marker import mark
from pipeline.step import Outcome, Step, Work
from pipeline.steps.weights import pretrained
from pipeline.store import Store


@dataclass(frozen=True, eq=False, repr=False)
class Pick(Step):
    """Its checkpoint is its input's."""

    kind: ClassVar[str] = "pick"
    of: Step

    def run(self, work: Work) -> Outcome:
        return Outcome(work.checkpoint_of(self.of))


def test_another_workspace_finds_the_step_and_brings_what_it_needs(tmp_path: Path, objects: str) -> None:
    here, there = opened(tmp_path / "here", objects), opened(tmp_path / "there", objects)
    first = Write("a")
    second = Write("b", (first,))
    assert there.why_not(first) == "never run"
    assert perform(first, here).ran
    assert not perform(first, there).ran
    record = there.record(first)
    assert record is not None
    assert record.digest == here.record(first).digest  # type: ignore[union-attr]
    assert (record.directory / "history.jsonl").exists()  # what reports read
    assert not (record.directory / "checkpoint").exists()  # until a step needs it
    assert perform(second, there).ran
    assert (record.directory / "checkpoint" / "text").read_text() == "a"
    found = Store(tmp_path / "here" / "store").by_key(second.key)
    assert found is not None
    assert found.metrics == {"length": 2}


def test_what_is_known_of_a_step_is_the_same_with_and_without_an_object_store(tmp_path: Path, objects: str) -> None:
    alone, mirrored = Store(tmp_path / "alone"), opened(tmp_path / "mirrored", objects)
    step = Write("a")
    perform(step, alone)
    perform(step, mirrored)
    first, second = alone.record(step), mirrored.record(step)
    assert first is not None
    assert second is not None
    assert first.content["outputs"] == second.content["outputs"]
    assert {"attempt", "objects"} == second.content.keys() - first.content.keys()
    assert set(second.content["objects"]) == {"checkpoint/text", "checkpoint/large", "history.jsonl"}


def test_a_file_that_is_gone_or_cut_there_makes_the_step_run_again(tmp_path: Path, objects: str) -> None:
    step = Write("a")
    perform(step, opened(tmp_path / "here", objects))
    attempt = opened(tmp_path / "here", objects).record(step).content["attempt"]  # type: ignore[union-attr]
    name = f"store/{step.key}/{attempt}/checkpoint/text"
    open_bucket(objects).write(name, b"")
    there = opened(tmp_path / "there", objects)
    assert there.why_not(step) == "its file checkpoint/text has 0 bytes where the record says 1"
    open_bucket(objects).remove([name])
    there = Store(tmp_path / "there" / "store")
    assert there.why_not(step) == "its file checkpoint/text is gone"
    assert perform(step, there).ran
    again = Store(tmp_path / "here" / "store").record(step)
    assert again is not None
    assert again.content["attempt"] != attempt
    assert not [name for name in open_bucket(objects).sizes(f"store/{step.key}") if attempt in name]


def test_a_damaged_file_of_the_cache_is_brought_again(tmp_path: Path, objects: str) -> None:
    step = Write("a")
    store = opened(tmp_path, objects)
    perform(step, store)
    (store.directory(step) / "checkpoint" / "text").write_text("x")
    perform(second := Write("b", (step,)), store)
    assert (store.directory(second) / "checkpoint" / "text").read_text() == "ab"


def test_a_damaged_object_is_told(tmp_path: Path, objects: str) -> None:
    step = Write("a")
    perform(step, opened(tmp_path / "here", objects))
    attempt = opened(tmp_path / "here", objects).record(step).content["attempt"]  # type: ignore[union-attr]
    open_bucket(objects).write(f"store/{step.key}/{attempt}/checkpoint/text", b"x")
    with pytest.raises(InputError, match=f"is damaged.*remove .*{step.key}/record.json"):
        perform(Write("b", (step,)), opened(tmp_path / "there", objects))


def test_a_checkpoint_that_another_step_made_is_found_from_anywhere(tmp_path: Path, objects: str) -> None:
    first = Write("a")
    pick = Pick(first)
    here = opened(tmp_path / "here", objects)
    perform(first, here)
    perform(pick, here)
    there = opened(tmp_path / "there", objects)
    assert there.why_not(pick) is None
    perform(second := Write("b", (pick,)), there)
    assert (there.directory(second) / "checkpoint" / "text").read_text() == "ab"


def test_a_local_base_is_put_where_all_nodes_find_it(tmp_path: Path, objects: str) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"weights")
    here = opened(tmp_path / "here", objects)
    step = pretrained(str(base), here.root / "digests.json")
    perform(step, here)
    shutil.rmtree(base)
    there = opened(tmp_path / "there", objects)
    record = there.record(step)
    assert record is not None
    there.take_up(record, whole=False)
    assert (record.checkpoint / "model.safetensors").read_bytes() == b"weights"  # type: ignore[operator]
    assert record.content["outputs"]["files"].keys() == {"config.json", "model.safetensors"}


def test_a_store_that_was_sent_elsewhere_opens_the_same(tmp_path: Path, objects: str) -> None:
    store = opened(tmp_path, objects)
    step = Write("a")
    perform(step, store)
    sent = pickle.dumps(store)
    shutil.rmtree(tmp_path / "store")
    assert pickle.loads(sent).record(step) is not None


def test_who_comes_second_takes_what_the_first_has_made(tmp_path: Path, objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was away for long finishes a step that another one has finished meanwhile."""
    step, late, quick = Write("a"), opened(tmp_path / "late", objects), opened(tmp_path / "quick", objects)
    other: dict[str, Any] = {}
    real = Write.run

    def run(self: Write, work: Work) -> Outcome:
        made = real(self, work)
        if not other:
            other["attempt"] = "a"
            late.mirror.leases[step.key].free()  # type: ignore[union-attr]
            perform(self, quick)
            late.mirror.leases[step.key].check = lambda: None  # type: ignore[union-attr, method-assign]
        return made

    monkeypatch.setattr(Write, "run", run)
    perform(step, late)
    mine, theirs = late.record(step), quick.record(step)
    assert mine is not None
    assert theirs is not None
    assert mine.content == theirs.content
    attempts = {name.split("/")[2] for name in open_bucket(objects).sizes(f"store/{step.key}")}
    assert attempts == {"record.json", mine.content["attempt"]}


def test_who_lost_the_lease_does_not_make_its_work_known(tmp_path: Path, objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step, store = Write("a"), opened(tmp_path, objects)
    real = Write.run

    def run(self: Write, work: Work) -> Outcome:
        open_bucket(objects).write(f"locks/{step.key}", b"another's\n")
        return real(self, work)

    monkeypatch.setattr(Write, "run", run)
    with pytest.raises(ResourceError, match="another one took over"):
        perform(step, store)
    assert Store(tmp_path / "store").why_not(step) == "was interrupted, goes on from there"


def test_many_steps_are_asked_for_with_one_question(tmp_path: Path, objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, steps = opened(tmp_path, objects), [Write(str(number)) for number in range(3)]
    for step in steps[:2]:
        perform(step, store)
    asked: list[str] = []
    bucket = type(open_bucket(objects))
    real = bucket.sizes
    monkeypatch.setattr(bucket, "sizes", lambda self, prefix="": asked.append(prefix) or real(self, prefix))
    monkeypatch.setattr(bucket, "read", lambda *_: pytest.fail("the local records will do"))
    again = Store(tmp_path / "store")
    again.look()
    assert [again.why_not(step) for step in steps] == [None, None, "never run"]
    assert asked == ["store"]


def test_a_workspace_keeps_to_its_object_store(tmp_path: Path, objects: str) -> None:
    perform(Write("a"), opened(tmp_path / "with", objects))
    perform(Write("a"), Store(tmp_path / "without" / "store"))
    for place, uri in (("with", f"{objects}x"), ("without", objects)):
        with pytest.raises(ConfigError, match="give another workspace"):
            mark(tmp_path / place / "store", uri)
    mark(tmp_path / "with" / "store", objects)
    mark(tmp_path / "with" / "store", None)  # an experiment that names none: the workspace knows
    assert Store(tmp_path / "with" / "store").mirror is not None
    mark(tmp_path / "new" / "store", f"{objects}x")
    mark(tmp_path / "new" / "store", objects)  # nothing was done with the first: a mistyped one may be corrected
    assert json.loads((tmp_path / "new" / "store" / "objects.json").read_text()) == {"uri": objects}
    (tmp_path / "new" / "store" / "objects.json").write_text("{")
    with pytest.raises(InputError, match=r"objects.json does not say which object store"):
        Store(tmp_path / "new" / "store")


def test_without_an_object_store_nothing_of_it_is_loaded(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from pipeline.store import Store; Store(Path('.')).by_key('x');"
        "print([name for name in sys.modules if name.startswith('obstore') or name == 'pipeline.objects.mirror'])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
    assert files.directory_manifest(tmp_path) == {}
