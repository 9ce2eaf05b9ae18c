"""Every merge method on Ray actors: the same bytes as in this process, for any number of actors, also when one is killed in a pass."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from dying import dying_once
from every_method import EXAMPLES
from test_every_method import Trial, weights_digest

from mergers import InProcess, ItemOutcome, WorkItem
from pipeline.graph.actors import RayActors

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ITEM_BYTES = 700


class DyingActors(RayActors):
    """Ray actors of which one is killed in every pass, after its item and before it could say so."""

    marker = ""
    passes = 0

    def map(self, function: Callable[[WorkItem], ItemOutcome], items: Sequence[WorkItem]) -> Iterator[ItemOutcome]:
        self.passes += 1
        return super().map(dying_once(function, f"{self.marker}.{self.passes}"), items)


@pytest.mark.parametrize("actors", [1, 2, 4])
def test_every_method_writes_the_same_bytes_on_any_number_of_actors(ray_cluster, bench_factory, actors):
    """The workers cut tensors as they do everywhere: only the size of the items is made small."""
    with RayActors(actors) as executor:
        for example in EXAMPLES:
            trial = Trial(bench_factory(), example)
            expected = weights_digest(trial.merge("here", InProcess(), item_bytes=ITEM_BYTES))
            assert weights_digest(trial.merge("there", executor, item_bytes=ITEM_BYTES)) == expected, str(example)


def test_a_killed_actor_changes_no_byte_in_any_pass(ray_cluster, bench):
    trial = Trial(bench, next(example for example in EXAMPLES if example.method == "slerp"))
    expected = weights_digest(trial.merge("here", InProcess(), item_bytes=ITEM_BYTES))
    executor = DyingActors(2)
    executor.marker = str(bench.root / "died")
    assert weights_digest(trial.merge("there", executor, item_bytes=ITEM_BYTES)) == expected
    assert len(list(bench.root.glob("died.*"))) == executor.passes > 1
