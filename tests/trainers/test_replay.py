"""Replay: which examples of earlier tasks are kept, and what a stage makes of them."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import ConfigError
from foundation.files import directory_manifest
from tasks.joined import Joined
from tasks.registry import get_task
from tasks.task import Split
from trainers.data.rehearsal import rehearsed
from trainers.spec import Grouping, TrainSpec
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.replay import Replay
from trainers.train import train_stage

EARLIER = (get_task("count"), get_task("read"))


@given(ratio=st.floats(0.01, 1), sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4), seed=st.integers(0, 2**31))
def test_a_buffer_is_kept_for_good(ratio: float, sizes: list[int], seed: int) -> None:
    replay = Replay(ratio=ratio)
    buffers = replay.buffers(sizes, seed)
    assert buffers == replay.buffers([*sizes, 50], seed)[: len(sizes)]  # a later stage keeps the same ones
    for buffer, size in zip(buffers, sizes, strict=True):
        assert buffer == sorted(set(buffer))
        assert 0 <= min(buffer) <= max(buffer) < size
        assert size * ratio <= len(buffer) < size * ratio + 1 + 1e-9


def test_a_count_is_kept_as_far_as_there_are_examples() -> None:
    assert [len(buffer) for buffer in Replay(count=20).buffers([100, 20, 5], seed=0)] == [20, 20, 5]


def test_what_is_rehearsed_are_training_examples_of_the_earlier_tasks(spec: TrainSpec) -> None:
    kept = rehearsed(Replay(ratio=0.5), EARLIER, spec)
    assert [len(examples) for examples in kept] == [10, 10]
    for task, examples in zip(EARLIER, kept, strict=True):
        own = {example.key for example in task.examples(Split.TRAIN, spec.samples)}
        assert {example.key for example in examples} < own
    joined = Joined(kept)
    assert [example.key for example in joined][10:] == [example.key for example in kept[1]]


def test_without_a_share_it_is_plain_fine_tuning(stage: Any, base: Path, spec: TrainSpec, tmp_path: Path) -> None:
    stage("plain")
    train_stage(base, get_task("parity"), spec, tmp_path / "replay", tmp_path / "replay-work", strategy=Replay(share=0), earlier=EARLIER)
    train_stage(base, get_task("parity"), spec, tmp_path / "first", tmp_path / "first-work", strategy=Replay(share=0.5))
    plain = directory_manifest(tmp_path / "plain")
    assert directory_manifest(tmp_path / "replay") == plain == directory_manifest(tmp_path / "first")


def test_a_stage_that_rehearses_learns_something_else_and_the_same_each_time(base: Path, spec: TrainSpec, tmp_path: Path) -> None:
    made = {}
    for name, strategy in (("one", Replay(share=0.5)), ("again", Replay(share=0.5)), ("more", Replay(share=0.75))):
        result = train_stage(base, get_task("parity"), spec, tmp_path / name, tmp_path / f"{name}-work", strategy=strategy, earlier=EARLIER)
        assert result.samples == 56
        assert result.epochs == 56 * (1 - strategy.share) / 20  # how often its own examples were shown
        made[name] = directory_manifest(tmp_path / name)
    assert made["one"] == made["again"] != made["more"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"share": 1.0}, "share is 1.0"),
        ({"ratio": 0.1, "count": 5}, "not both"),
        ({"ratio": 0.0}, "ratio is 0.0"),
        ({"count": 0}, "count is 0"),
        ({"mixing": "equel"}, "did you mean 'equal'"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Replay(**fields)


def test_earlier_tasks_need_a_strategy_that_rehearses(spec: TrainSpec) -> None:
    with pytest.raises(ConfigError, match="does not rehearse; leave them out, or use replay"):
        rehearsed(FineTuning(), EARLIER, spec)


def test_grouping_and_replay_exclude_each_other(spec: TrainSpec) -> None:
    with pytest.raises(ConfigError, match="leave out grouping length"):
        rehearsed(Replay(), EARLIER, TrainSpec(**{**spec.identity, "grouping": Grouping.LENGTH}))
