"""The order of examples: whole batches, each example at most once an epoch, the same for every cut."""

from hypothesis import given
from hypothesis import strategies as st

from trainers.order import StageOrder, epoch_order
from trainers.spec import TrainSpec, plan_batches


def order(examples: int, batch: int, steps: int, workers: int = 1, seed: int = 0) -> list[int]:
    spec = TrainSpec(parts=("projector",), learning_rate=1.0, batch_size=batch, max_steps=steps, seed=seed)
    sampler = StageOrder(examples, batch, plan_batches(spec, workers, examples), seed)
    found = list(sampler)
    assert len(found) == len(sampler) == batch * steps
    return found


@given(batch=st.integers(1, 6), per_epoch=st.integers(1, 5), left=st.integers(0, 5), steps=st.integers(1, 12))
def test_an_epoch_holds_no_example_twice(batch: int, per_epoch: int, left: int, steps: int) -> None:
    examples = batch * per_epoch + left % batch
    found = order(examples, batch, steps)
    for first in range(0, len(found), batch * per_epoch):
        epoch = found[first : first + batch * per_epoch]
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(examples))


def test_a_longer_stage_begins_like_a_shorter_one() -> None:
    assert order(50, 4, 30)[:40] == order(50, 4, 10)


def test_workers_share_one_order() -> None:
    assert order(50, 4, 20, workers=1) == order(50, 4, 20, workers=4)


def test_epochs_and_seeds_differ() -> None:
    orders = [epoch_order(100, seed, epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(each) for each in orders}) == len(orders)
