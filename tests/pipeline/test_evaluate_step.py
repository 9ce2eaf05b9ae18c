"""The step that asks a model: in its own process or by Ray actors, the same bytes; what it asks of Ray; how it tells its progress."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asked_tasks
import pytest
from asked_tasks import Graded, shouting_model
from dying import dying_once
from ray import cloudpickle

from evaluators.evaluate import evaluate
from evaluators.scores import read_samples
from evaluators.suite import Suite
from foundation.errors import InputError
from pipeline.graph.actors import RayActors
from pipeline.graph.perform import perform
from pipeline.steps import DIGESTS_FILE, Evaluate, pretrained
from pipeline.store import Store
from tasks.task import Answering, Split

cloudpickle.register_pickle_by_value(asked_tasks)  # the workers do not have this directory on their path

SUITE = Suite((Graded("cell", macro=True), Graded("parity", Answering.LIKELIHOOD)), (Graded("name"),), Split.TEST, 11)
BATCH = 2
FILES = ("samples.parquet", "scores.json")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shouting_model(tmp_path_factory.mktemp("model") / "checkpoint")


@dataclass
class Ear:
    """Hears what the driver would."""

    heard: list[tuple[float, float]] = field(default_factory=list)

    def started(self, key: str) -> None:
        pass

    def progress(self, key: str, done: float, total: float, note: str) -> None:
        self.heard.append((done, total))


def asked(checkpoint: Path, store: Store, workers: int, ear: Ear | None = None) -> tuple[Evaluate, dict[str, bytes]]:
    """The step, performed, and its files."""
    model = pretrained(str(checkpoint), store.root / DIGESTS_FILE)
    step = Evaluate(model, SUITE, BATCH, workers=workers)
    perform(model, store)
    assert perform(step, store, ear).ran
    return step, {name: (store.directory(step) / name).read_bytes() for name in FILES}


def test_a_step_in_its_own_process(checkpoint, tmp_path) -> None:
    store, ear = Store(tmp_path / "store"), Ear()
    step, files = asked(checkpoint, store, 0, ear)
    scores = evaluate(checkpoint, SUITE, tmp_path / "alone", BATCH)
    assert files == {name: (tmp_path / "alone" / name).read_bytes() for name in FILES}
    record = store.record(step)
    assert record is not None
    assert {name: entry["accuracy"] for name, entry in record.metrics.items()} == {name: each.accuracy for name, each in scores.items()}
    assert "graded cell/length" in record.metrics
    assert not (store.directory(step) / "work").exists()
    done = [done for done, _ in ear.heard]
    assert {total for _, total in ear.heard} == {33}
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 33)


def test_workers_are_no_part_of_what_it_is(checkpoint, tmp_path) -> None:
    model = pretrained(str(checkpoint), tmp_path / DIGESTS_FILE)
    alone, crowd = Evaluate(model, SUITE, threads=2), Evaluate(model, SUITE, threads=2, workers=3, gpus=0.5)
    assert alone.fingerprint == crowd.fingerprint
    assert alone.identity["version"] == 2
    assert (alone.ray_options, crowd.ray_options) == ({"num_cpus": 2, "num_gpus": 0}, {"num_cpus": 0})
    assert (alone.demand, crowd.demand) == ({"CPU": 2, "GPU": 0}, {"CPU": 2, "GPU": 0.5})


@pytest.mark.cluster
@pytest.mark.slow
def test_one_worker_and_two_give_the_same_bytes(ray_cluster: None, checkpoint, tmp_path) -> None:
    _, expected = asked(checkpoint, Store(tmp_path / "0"), 0)
    for workers in (1, 2):
        ear = Ear()
        _, files = asked(checkpoint, Store(tmp_path / str(workers)), workers, ear)
        assert files == expected
        assert ear.heard[-1] == (33, 33)


class DyingActors(RayActors):
    """Two actors of which one is killed after it asked a part and before it could say so."""

    marker = ""

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        return super().map(dying_once(function, self.marker), items)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_killed_worker_is_replaced(ray_cluster: None, checkpoint, tmp_path, monkeypatch) -> None:
    evaluate(checkpoint, SUITE, tmp_path / "whole", BATCH)
    monkeypatch.setattr(DyingActors, "marker", str(tmp_path / "died"))
    with DyingActors(2) as crew:
        evaluate(checkpoint, SUITE, tmp_path / "killed", BATCH, crew=crew)
    assert (tmp_path / "died").exists()
    for name in FILES:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(read_samples(tmp_path / "killed" / "samples.parquet")) == 33


@pytest.mark.cluster
@pytest.mark.slow
def test_a_workers_error_is_the_users_message(ray_cluster: None, checkpoint, tmp_path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in checkpoint.iterdir():
        (broken / path.name).write_bytes(path.read_bytes()[: 1000 if path.suffix == ".safetensors" else None])
    with RayActors(2) as crew, pytest.raises(InputError, match="weights cannot be read"):
        evaluate(broken, SUITE, tmp_path / "out", BATCH, crew=crew)
    assert not (tmp_path / "out").exists()
