"""Merges on Ray actors: the same bytes as in this process, for any number of actors, and when one is killed."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from dying import dying_once
from safetensors.torch import save_file

from foundation.errors import InputError
from mergers import InProcess, ItemOutcome, Source, WeightedAverage, WiseFT, WorkItem, execute, plan_merge, read_checkpoint
from mergers.engine.shard import merge_shard
from pipeline.graph.actors import RayActors

pytestmark = pytest.mark.cluster


def make_checkpoint(directory: Path, seed: int, broken: bool = False) -> Path:
    directory.mkdir()
    random = np.random.default_rng(seed)
    tensors = {
        f"layer.{index}.weight": torch.from_numpy(random.standard_normal((64, 48), dtype=np.float32)).bfloat16() for index in range(6)
    }
    tensors["shared"] = torch.arange(1000, dtype=torch.float32)
    if broken:
        tensors["layer.3.weight"][0, 0] = float("nan")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "config.json").write_text('{"model_type": "llama"}')
    return directory


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    room = tmp_path_factory.mktemp("sources")
    return [Source(f"s{seed}", read_checkpoint(make_checkpoint(room / f"s{seed}", seed))) for seed in range(3)]


def merged(sources: list[Source], output: Path, executor: RayActors | InProcess) -> dict[str, str]:
    plan = plan_merge(WeightedAverage((0.2, 0.3, 0.5)), sources, output, item_bytes=2048)
    assert len(plan.items) > 4
    return execute(plan, executor).files


@pytest.mark.slow
def test_any_number_of_actors_writes_the_same_bytes(ray_cluster: None, sources: list[Source], tmp_path: Path) -> None:
    expected = merged(sources, tmp_path / "in_process", InProcess())
    for actors in (1, 2, 4):
        import ray

        assert ray.is_initialized()
        # four actors on two processors: two of them never start, and nothing may wait for them
        assert merged(sources, tmp_path / f"actors{actors}", RayActors(actors)) == expected


class DyingActors(RayActors):
    """Ray actors of which one is killed after it wrote its first item and before it could say so."""

    marker = ""

    def map(self, function: Callable[[WorkItem], ItemOutcome], items: Sequence[WorkItem]) -> Iterator[ItemOutcome]:
        return super().map(dying_once(function, self.marker), items)


@pytest.mark.slow
def test_a_killed_actor_is_replaced_and_its_item_done_again(
    ray_cluster: None, sources: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = merged(sources, tmp_path / "whole", InProcess())
    monkeypatch.setattr(DyingActors, "marker", str(tmp_path / "died"))
    assert merged(sources, tmp_path / "killed", DyingActors(2)) == expected
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_an_error_in_an_actor_is_the_users_message_and_leaves_nothing(ray_cluster: None, sources: list[Source], tmp_path: Path) -> None:
    broken = Source("tuned", read_checkpoint(make_checkpoint(tmp_path / "broken", 5, broken=True)))
    previous = Source("previous", sources[0].checkpoint)
    plan = plan_merge(WiseFT(0.5), [previous, broken], tmp_path / "output", item_bytes=2048)
    with pytest.raises(InputError, match=r"layer\.3\.weight"):
        execute(plan, RayActors(2))
    assert {path.name for path in tmp_path.iterdir()} == {"broken"}


def test_a_shard_travels_small(sources: list[Source], tmp_path: Path) -> None:
    import pickle

    plan = plan_merge(WeightedAverage(), sources, tmp_path / "output")
    assert max(len(pickle.dumps((partial(merge_shard, directory="x"), item))) for item in plan.items) < 20_000
