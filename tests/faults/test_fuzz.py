"""Every small file that is read back, with bytes and values changed at random: taken, passed over, or refused by name, never a traceback.

`MERGELINE_FUZZ` is how many cases each kind of file gets (default 150, always the same; `make chaos` takes thousands, others each time).
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import ClassVar

import pytest
from commands import COMPARE, EXPERIMENT
from mutations import damaged, damaged_bytes
from test_refused_at_once import INDEX, whole

from foundation.errors import ConfigError, InputError, MergelineError
from mergers import read_checkpoint
from pipeline.command.validate import validate_experiment
from pipeline.config.merge_source import request_from_file
from pipeline.digests import checkpoint_manifest
from pipeline.graph.history import read_history
from pipeline.graph.perform import perform
from pipeline.step import Outcome, Step, Work
from pipeline.store import Store

CASES = int(os.environ.get("MERGELINE_FUZZ", "150"))
FIRST = random.SystemRandom().randrange(10**9) if "MERGELINE_FUZZ" in os.environ else 0
LONGEST_SECONDS = 5.0
MERGE = (
    "method: ties\nbase: base\nsources:\n  math: a\n  code: {checkpoint: b, weight: 0.5}\n"
    "density: 0.2\nscale: {'*.mlp.*': [0, 1], '*': 0.5}\n"
)
POINT = b'{"step": 1, "time": 2.0, "values": {"train/loss": 0.5}}'


@dataclass(frozen=True, eq=False, repr=False)
class Small(Step):
    """A step with a checkpoint of one file."""

    kind: ClassVar[str] = "pretrained"
    text: str

    def run(self, work: Work) -> Outcome:
        place = work.directory / "checkpoint"
        place.mkdir(exist_ok=True)
        (place / "text").write_text(self.text)
        log = work.log_function()
        for number in range(1, 4):
            log(number, {"train/loss": 0.5 / number, "train/learning_rate": 1e-3})
        return Outcome(place, metrics={"length": len(self.text)}, details={"place": str(place)})


def cases() -> Iterator[Random]:
    """A source of chance for every case; the number of the one that failed stands in the traceback's `seed`."""
    for seed in range(FIRST, FIRST + CASES):
        yield Random(seed)


@contextmanager
def refused_by(kind: type[MergelineError], path: Path) -> Iterator[None]:
    """What is within may raise this error alone, whose message names the file, and takes no longer than a hang."""
    started, content, told = time.process_time(), path.read_bytes(), str(path)
    try:
        yield
    except kind as error:
        told = str(error)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} ({error}) for {content!r}") from error
    assert str(path.parent) in told or path.name in told, (content, told)
    assert time.process_time() - started < LONGEST_SECONDS, content


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Store, Small]:
    store, step = Store(tmp_path / "store"), Small("text")
    perform(step, store)
    return store, step


def test_a_record(stored: tuple[Store, Small]) -> None:
    store, step = stored
    path = store.directory(step) / "record.json"
    whole_record = path.read_bytes()
    for chance in cases():
        path.write_bytes(damaged(whole_record, chance))
        with refused_by(InputError, path):
            found = store.record(step)
            assert found is None or (
                isinstance(found.digest, str) and found.metrics is not None and found.checkpoint != found.directory.parent
            )
        with refused_by(InputError, path):
            by_key = store.by_key(step.key)
            assert by_key is None or (isinstance(by_key.digest, str) and by_key.metrics is not None)
        with refused_by(InputError, path):
            store.has_taken(store.directory(step) / "checkpoint")


def test_the_points_of_a_stage(stored: tuple[Store, Small]) -> None:
    """A line that is no point is left out: points are for display, and no step's work rests on them. The lines around it are kept."""
    store, step = stored
    path = store.directory(step) / "fuzzed.jsonl"
    lines = (store.directory(step) / "history.jsonl").read_bytes()
    for chance in cases():
        path.write_bytes(damaged_bytes(lines, chance))
        with refused_by(InputError, path):
            assert all(isinstance(point.step, int) and isinstance(point.values, dict) for point in read_history(path))
        path.write_bytes(damaged(POINT, chance).replace(b"\n", b"") + b"\n" + POINT.replace(b"1", b"2") + b"\n")
        with refused_by(InputError, path):
            assert [point.step for point in read_history(path)][-1:] == [2]


def test_the_remembered_digests(tmp_path: Path, stored: tuple[Store, Small]) -> None:
    """They only save time: where what they say cannot be a digest, the files are read again."""
    store, step = stored
    place, remembered = store.directory(step) / "checkpoint", tmp_path / "digests.json"
    expected = checkpoint_manifest(place, remembered)
    content = remembered.read_bytes()
    for chance in cases():
        remembered.write_bytes(damaged(content, chance))
        with refused_by(InputError, remembered):
            found = checkpoint_manifest(place, remembered)
            assert found.keys() == expected.keys()
            assert all(isinstance(digest, str) and len(digest) == 64 for digest in found.values())


@pytest.mark.parametrize("name", [INDEX, "config.json"])
def test_a_checkpoints_json(tmp_path: Path, name: str) -> None:
    path = whole(tmp_path / "checkpoint") / name
    content = path.read_bytes()
    for chance in cases():
        path.write_bytes(damaged(content, chance))
        with refused_by(InputError, path):
            for entry in read_checkpoint(path.parent).tensors.values():
                assert Path(entry.path).parent == path.parent
                assert entry.start + entry.nbytes <= os.path.getsize(entry.path)


def validated_experiment(path: Path) -> None:
    with suppress(InputError):  # a base or a data set whose name was changed is not there
        validate_experiment(path)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "an experiment": (EXPERIMENT, validated_experiment),
    "a comparison": (COMPARE, validated_experiment),
    "a merge": (MERGE, request_from_file),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_configuration(tmp_path: Path, kind: str) -> None:
    text, read = READERS[kind]
    path = tmp_path / "c.yaml"
    for chance in cases():
        path.write_bytes(damaged_bytes(text.encode(), chance))
        with refused_by(ConfigError, path):
            read(path)
