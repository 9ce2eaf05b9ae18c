"""Merge actors killed outright at any moment of an item: the same bytes, and nothing begun again but what the killed had been given.

For each kill that is the item in work; where its moment comes at once, also the one before, whose outcome was still on its way.

`MERGELINE_ACTOR_KILLS` is how many are killed in all (default 5, at most 5 in one merge; `make chaos` kills 20).
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_within import chosen, killed_within
from safetensors.torch import save_file

from mergers import InProcess, ItemOutcome, Plan, Source, WorkItem, execute, plan_merge, read_checkpoint
from mergers.methods.model_stock import ModelStock
from pipeline.graph.actors import IN_FLIGHT, RayActors

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

KILLS = int(os.environ.get("MERGELINE_ACTOR_KILLS", "5"))
IN_A_MERGE = 5
SEED = int(os.environ.get("MERGELINE_KILL_SEED", str(random.SystemRandom().randrange(10**6))))
LONGEST = 0.03
"""Seconds into an item at which its actor dies: an item takes about half of that."""


@dataclass
class Killed:
    """Ray actors, some of which die: in each pass of the merge, those of `deaths` at that place."""

    actors: RayActors
    deaths: list[int]
    place: Path
    items: int = 0
    passes: int = 0

    def map(self, function: Callable[[WorkItem], ItemOutcome], items: Sequence[WorkItem]) -> Iterator[ItemOutcome]:
        place = self.place / str(self.passes)
        place.mkdir(parents=True)
        moments = chosen([item.index for item in items], self.deaths[self.passes], LONGEST, SEED + self.passes)
        self.passes += 1
        self.items += len(items)
        return self.actors.map(killed_within(function, moments, str(place)), items)

    def begun(self) -> int:
        """How many items were begun, over all passes."""
        return sum(len((place / "begun").read_text().split()) for place in self.place.iterdir())

    def died(self) -> int:
        """How many actors died."""
        return len(list(self.place.glob("*/died-*")))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """Three checkpoints of 3 MB each."""
    room = tmp_path_factory.mktemp("sources")
    for seed in range(3):
        (room / str(seed)).mkdir()
        chance = np.random.default_rng(seed)
        tensors = {f"layer.{n}.weight": torch.from_numpy(chance.standard_normal((512, 128), dtype=np.float32)) for n in range(12)}
        save_file(tensors, room / str(seed) / "model.safetensors", metadata={"format": "pt"})
        (room / str(seed) / "config.json").write_text('{"model_type": "llama"}')
    return [Source(f"s{seed}", read_checkpoint(room / str(seed))) for seed in range(3)]


def planned(sources: list[Source], output: Path) -> Plan:
    """A merge of one counting pass and the writing one, of many items each."""
    plan = plan_merge(ModelStock(), sources[1:], output, base=sources[0], item_bytes=256 << 10)
    assert plan.rounds == 1
    return plan


@pytest.mark.timeout(120 * (KILLS + 2))
def test_killed_actors_change_no_byte(ray_cluster: None, sources: list[Source], tmp_path: Path) -> None:
    expected = execute(planned(sources, tmp_path / "whole"), InProcess()).files
    killed = more = items = 0
    for number in range(-(-KILLS // IN_A_MERGE)):
        wanted = min(IN_A_MERGE, KILLS - killed)
        executor = Killed(RayActors(2), [wanted // 2, wanted - wanted // 2], tmp_path / f"notes-{number}")
        assert execute(planned(sources, tmp_path / f"killed-{number}"), executor).files == expected
        assert executor.died() == wanted
        assert executor.begun() - executor.items <= IN_FLIGHT * wanted, "an item was begun again that no killed actor had been given"
        killed, more, items = killed + wanted, more + executor.begun() - executor.items, items + executor.items
    print(f"seed {SEED}: {killed} actors killed over {items} items, {more} items begun once more, the same bytes")
