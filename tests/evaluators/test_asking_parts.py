"""Parts of an evaluation: planned without workers, kept until the end, taken up again after a kill, the same whoever asks them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from asked_tasks import Graded, LazyTask, shouting_model

from evaluators import parts
from evaluators.ask import encoded_ahead
from evaluators.evaluate import evaluate
from evaluators.generate import encode, load_answerer
from evaluators.harness.spec import Harness, HarnessTask
from evaluators.parts import parts_of
from evaluators.questions import Sheet, cut, sheets_of
from evaluators.scores import read_samples
from evaluators.suite import Suite
from foundation.errors import InputError, MergelineError
from models.load import load_processor
from tasks.task import Answering, Example, Split

SUITE = Suite((Graded("cell"), Graded("parity", Answering.LIKELIHOOD)), (Graded("name"),), Split.TEST, 13)
BATCH = 2
PARTS = 3 * 7  # seven batches each, one a part


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shouting_model(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def expected(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    place = tmp_path_factory.mktemp("expected")
    evaluate(checkpoint, SUITE, place, BATCH)
    return contents(place)


def contents(place: Path) -> dict[str, bytes]:
    return {name: (place / name).read_bytes() for name in ("samples.parquet", "scores.json")}


class Backwards:
    """A worker that loads the model itself, takes the last part first, and is sent what it needs as another process would be."""

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        import pickle

        for item in reversed(items):
            yield pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(item)))


def test_the_order_of_parts_changes_no_byte(checkpoint, expected, tmp_path, monkeypatch) -> None:
    loaded: list[Path] = []
    load = parts.load_answerer
    monkeypatch.setattr(parts, "load_answerer", lambda place, **more: loaded.append(place) or load(place, **more))
    heard: list[tuple[str, int, int]] = []
    evaluate(checkpoint, SUITE, tmp_path, BATCH, on_progress=lambda *event: heard.append(event), crew=Backwards())
    assert contents(tmp_path) == expected
    assert loaded == [checkpoint], "once for all parts"
    assert heard[:3] == [(task.name, 0, 13) for task in SUITE.tasks]
    assert heard[-7:] == [("graded name", done, 13) for done in (1, 3, 5, 7, 9, 11, 13)]


@pytest.mark.parametrize(("batches", "sizes"), [(1, [1]), (3, [1, 1, 1]), (20, [2] * 10), (40, [4] * 10), (102, [4] * 25 + [2])])
def test_parts_are_runs_of_batches(batches: int, sizes: list[int]) -> None:
    example = Example("k", (), "?", "!")
    sheet = Sheet(Graded("cell"), (example,) * 5 * batches, tuple("p" * 5 * batches), cut(range(5 * batches), 5), "")
    assert [len(part) for part in sheet.parts] == sizes
    assert [batch for part in sheet.parts for batch in part] == list(sheet.batches)
    found = list(parts_of(3, sheet))
    assert [part.number for part in found] == list(range(len(sizes)))
    assert {part.task for part in found} == {3}


KILL = """
import os, signal, sys
from pathlib import Path
from test_asking_parts import BATCH, SUITE
from evaluators.evaluate import evaluate

def die(task, done, total):
    if (task, done) == ("graded cell", 6):
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint, output, scratch = map(Path, sys.argv[1:])
evaluate(checkpoint, SUITE, output, BATCH, on_progress=die, scratch=scratch)
"""


@pytest.mark.slow
def test_killed_it_goes_on_from_the_parts_that_are_there(checkpoint, expected, tmp_path) -> None:
    """SIGKILL in the third batch of the second task: nine parts are there, and are not asked again; a torn one is."""
    output, scratch = tmp_path / "output", tmp_path / "scratch"
    path = os.pathsep.join(str(place) for place in (Path(__file__).parents[2], Path(__file__).parents[1], Path(__file__).parent))
    killed = subprocess.run([sys.executable, "-c", KILL, checkpoint, output, scratch], env={**os.environ, "PYTHONPATH": path}, check=False)
    assert killed.returncode == -9
    kept = sorted(scratch.glob("part-*"))
    assert len(kept) == 7 + 2
    assert not output.exists()
    torn = kept[4]
    torn.write_bytes(torn.read_bytes()[:200])
    heard: list[tuple[str, int, int]] = []
    evaluate(checkpoint, SUITE, output, BATCH, on_progress=lambda *event: heard.append(event), scratch=scratch)
    assert heard[:3] == [("graded name", 11, 13), ("graded cell", 4, 13), ("graded parity", 0, 13)]
    assert len(heard) == 3 + PARTS - 8
    assert contents(output) == expected
    assert list(scratch.glob("part-*")) == []


def stopped(checkpoint: Path, scratch: Path, suite: Suite = SUITE, batch: int = BATCH) -> None:
    """An evaluation that ends in the middle."""

    def stop(task: str, done: int, total: int) -> None:
        if (task, done) == ("graded cell", 13):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(checkpoint, suite, scratch / "none", batch, on_progress=stop, scratch=scratch)
    assert len(list(scratch.glob("part-*"))) > 3


@pytest.mark.parametrize("other", ["batch size", "task", "checkpoint"])
def test_parts_of_another_evaluation_are_not_taken(checkpoint, expected, tmp_path, other) -> None:
    suite = Suite(SUITE.stream, (Graded("name", max_new_tokens=5),), samples=13) if other == "task" else SUITE
    place = shouting_model(tmp_path / "model", seed=8) if other == "checkpoint" else checkpoint
    stopped(place, tmp_path / "scratch", suite, 3 if other == "batch size" else BATCH)
    heard: list[tuple[str, int, int]] = []
    evaluate(checkpoint, SUITE, tmp_path / "out", BATCH, on_progress=lambda *event: heard.append(event), scratch=tmp_path / "scratch")
    assert heard[:3] == [(task.name, 0, 13) for task in SUITE.tasks]
    assert contents(tmp_path / "out") == expected


def test_nothing_is_loaded_where_all_parts_are_there(checkpoint, tmp_path, monkeypatch) -> None:
    def ending(samples: Any, path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("evaluators.evaluate.write_samples", ending)
        with pytest.raises(KeyboardInterrupt):
            evaluate(checkpoint, SUITE, tmp_path / "out", BATCH, scratch=tmp_path / "scratch")
    monkeypatch.setattr(parts, "load_answerer", lambda *_, **more: pytest.fail("loaded"))
    evaluate(checkpoint, SUITE, tmp_path / "out", BATCH, scratch=tmp_path / "scratch")
    assert len(read_samples(tmp_path / "out" / "samples.parquet")) == 39


def test_a_lazy_task_is_read_once_and_planned_without_reading(checkpoint, tmp_path) -> None:
    log = tmp_path / "log"
    suite = Suite((LazyTask("cell", str(log)),), samples=9)
    sheets = sheets_of(load_processor(checkpoint), suite, 2)
    assert not log.exists()
    evaluate(checkpoint, suite, tmp_path / "out", 2)
    order = [row for batch in sheets[0].batches for row in batch]
    assert [int(line) for line in log.read_text().split()] == order
    evaluate(checkpoint, Suite((Graded("cell"),), samples=9), tmp_path / "list", 2)
    lazy, whole = (read_samples(tmp_path / place / "samples.parquet") for place in ("out", "list"))
    assert [sample.response for sample in lazy] == [sample.response for sample in whole]
    log.unlink()
    evaluate(checkpoint, suite, tmp_path / "sent", 2, crew=Backwards())
    assert read_samples(tmp_path / "sent" / "samples.parquet") == lazy
    assert len(log.read_text().split()) == 9


def test_a_part_travels_small(checkpoint, tmp_path) -> None:
    """A lazy task's examples stay where they are, and prompts that are the same are sent once; else a part carries its own examples."""
    import pickle

    suite = Suite((LazyTask("name", str(tmp_path / "log")), Graded("name")), samples=400)
    lazy, held = (list(parts_of(place, sheet)) for place, sheet in enumerate(sheets_of(load_processor(checkpoint), suite, 100)))
    assert max(len(pickle.dumps(part)) for part in lazy) < 1500
    assert not (tmp_path / "log").exists()
    assert [len(part.examples[0]) for part in held] == [100] * 4


def test_batches_encoded_ahead_are_the_same(checkpoint) -> None:
    """What a GPU's batches go through, here on the CPU; what goes wrong in the thread is told."""
    answerer = load_answerer(checkpoint)
    (sheet,) = sheets_of(answerer.processor, Suite((Graded("cell"),), samples=7), 3)
    batches = [([sheet.examples[row] for row in rows], [sheet.prompts[row] for row in rows]) for rows in sheet.batches]
    found = list(encoded_ahead(answerer, batches))
    assert len(found) == 3
    for (examples, prompts, inputs), batch in zip(found, batches, strict=True):
        assert (examples, prompts) == batch
        expected = encode(answerer, *batch)
        assert inputs.keys() == expected.keys()
        assert all(torch.equal(inputs[name], expected[name]) for name in inputs)

    def failing() -> Iterator[Any]:
        yield batches[0]
        raise InputError("the image is damaged")

    ahead = encoded_ahead(answerer, failing())
    assert next(ahead)[:2] == batches[0]
    with pytest.raises(InputError, match="damaged"):
        next(ahead)


def test_a_harness_is_heard_before_anything_is_asked(checkpoint, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(parts, "load_answerer", lambda *_, **more: pytest.fail("loaded"))
    foreign = HarnessTask("theirs", Harness.LM_EVAL, "arc", python=str(tmp_path / "no" / "python"))
    for crew in (None, Backwards()):
        with pytest.raises(MergelineError, match="python"):
            evaluate(checkpoint, Suite((Graded("cell"),), harness=(foreign,)), tmp_path / "out", crew=crew)
    assert not (tmp_path / "out").exists()
