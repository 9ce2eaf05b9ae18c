"""The order of examples: whole batches, each example at most once an epoch, the same for every cut."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import ConfigError
from trainers.data.mixing import MixedOrder, mixed_batches, planned_examples
from trainers.data.order import MEGA, StageOrder, epoch_order, grouped
from trainers.spec import Batches, TrainSpec, plan_batches
from trainers.strategies.replay import Mixing


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


def batches_of(order: Sequence[int], size: int) -> list[list[int]]:
    return [list(order[first : first + size]) for first in range(0, len(order), size)]


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=60), st.integers(1, 6), st.booleans())
def test_grouped_epochs_are_permutations_in_whole_batches(rows: list[tuple[int, bool]], batch: int, by_kind: bool) -> None:
    lengths, kinds = [length for length, _ in rows], [kind for _, kind in rows]
    found = grouped(epoch_order(len(rows), 0, 0), lengths, kinds if by_kind else None, batch, 0, 0)
    assert len(found) == len(rows) // batch * batch
    assert len(set(found)) == len(found)
    if by_kind:
        mixed = [each for each in batches_of(found, batch) if len({kinds[index] for index in each}) > 1]
        assert len(mixed) <= 1


def test_grouped_batches_are_alike_and_differ_from_epoch_to_epoch() -> None:
    lengths = [1 + (index * 37) % 500 for index in range(4000)]

    def padding(order: Sequence[int]) -> float:
        parts = batches_of(order, 8)
        return sum(8 * max(lengths[index] for index in part) - sum(lengths[index] for index in part) for part in parts) / sum(lengths)

    plain = epoch_order(4000, 0, 0)
    alike = grouped(plain, lengths, None, 8, 0, 0)
    assert padding(plain) > 0.5
    assert padding(alike) < 0.02  # a mega batch holds 50 batches, so lengths within a batch differ by about 1/50 of their range
    maxima = [max(lengths[index] for index in part) for part in batches_of(alike, 8)]
    assert sorted(maxima, reverse=True) != maxima
    again = grouped(epoch_order(4000, 0, 1), lengths, None, 8, 0, 1)
    assert {frozenset(part) for part in batches_of(alike, 8)} & {frozenset(part) for part in batches_of(again, 8)} == set()
    assert len(plain) > MEGA * 8
    assert grouped(plain, lengths, None, 8, 0, 1) != alike != grouped(plain, lengths, None, 8, 1, 0)


def test_a_grouped_stage_is_one_order_for_all_cuts() -> None:
    batches = [
        plan_batches(TrainSpec(parts=("projector",), learning_rate=1.0, batch_size=4, max_steps=30), workers, 50) for workers in (1, 2)
    ]
    first, second = (list(StageOrder(50, 4, plan, 3, [index % 9 for index in range(50)])) for plan in batches)
    assert first == second
    assert len(first) == 120
    assert len(set(first[:48])) == 48


counts = st.lists(st.integers(1, 40), min_size=0, max_size=4)


@given(counts, st.integers(1, 12), st.integers(1, 40), st.integers(0, 3), st.sampled_from(list(Mixing)))
def test_without_a_share_the_order_is_the_stages(earlier: list[int], batch: int, steps: int, seed: int, mixing: Mixing) -> None:
    plan = Batches(1, batch, 1, 15 // batch or 1, steps)
    plain = list(StageOrder(15, batch, plan, seed))
    assert list(MixedOrder([15, *earlier], batch, plan, seed, 0.0, mixing)) == plain
    assert list(MixedOrder([15], batch, plan, seed, 0.3, mixing)) == plain


@given(counts.filter(bool), st.integers(1, 12), st.integers(1, 40), st.integers(1, 99), st.sampled_from(list(Mixing)))
def test_the_share_of_a_stage_is_exact(earlier: list[int], batch: int, steps: int, percent: int, mixing: Mixing) -> None:
    """So many of every batch, and so many of all, as a plain sum says; within a batch off by one at most."""
    sizes, share = [20, *earlier], Fraction(percent, 100)
    found = list(mixed_batches(sizes, batch, steps, 0, percent / 100, mixing))
    assert [len(each) for each in found] == [batch] * steps
    rehearsed = [sum(index >= 20 for index in each) for each in found]
    due = [
        batch * (min(1, share * (Fraction(3, 2) - Fraction(step, steps))) if mixing is Mixing.ADAPTIVE else share) for step in range(steps)
    ]
    assert all(abs(has - asked) <= 1 for has, asked in zip(rehearsed, due, strict=True))
    assert abs(sum(rehearsed) - sum(due)) <= Fraction(1, 2)
    assert all(0 <= index < sum(sizes) for each in found for index in each)


@pytest.mark.parametrize("mixing", [Mixing.EQUAL, Mixing.PROPORTIONAL])
def test_earlier_tasks_share_what_is_theirs(mixing: Mixing) -> None:
    """Proportional: the mean of a third each and 0.1, 0.2 and 0.7 by size."""
    sizes = [1000, 10, 20, 70]
    found = [index for each in mixed_batches(sizes, 10, 300, 0, 0.5, mixing) for index in each if index >= 1000]
    owners = Counter(0 if index < 1010 else 1 if index < 1030 else 2 for index in found)
    expected = [1 / 3] * 3 if mixing is Mixing.EQUAL else [(1 / 3 + part) / 2 for part in (0.1, 0.2, 0.7)]
    assert all(abs(owners[task] - part * len(found)) < 1 for task, part in enumerate(expected))
    first = [index for index in found if index < 1010][:10]
    assert sorted(first) == list(range(1000, 1010))


def test_the_current_tasks_examples_keep_their_order() -> None:
    mixed = [index for each in mixed_batches([50, 9], 4, 40, 5, 0.25) for index in each if index < 50]
    assert mixed == order(50, 4, 40, seed=5)[: len(mixed)]


def test_a_planned_epoch_shows_every_current_example_once() -> None:
    assert planned_examples(90, 0.25) == 120
    steps = planned_examples(90, 0.25) // 10
    shown = Counter(index for each in mixed_batches([90, 5], 10, steps, 0, 0.25) for index in each if index < 90)
    assert shown == Counter(range(90))


def test_mixes_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ConfigError, match="earlier task 2 of 2 has no examples kept"):
        list(mixed_batches([10, 3, 0], 2, 1, 0, 0.5))
    with pytest.raises(ConfigError, match=r"share of a batch is 1\.5"):
        list(mixed_batches([10, 3], 2, 1, 0, 1.5))
    with pytest.raises(ConfigError, match="do not fill one batch"):
        MixedOrder([1, 3], 2, Batches(1, 2, 1, 1, 1), 0, 0.5)
