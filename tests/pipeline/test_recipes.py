"""The recipes yield the structures they are named for: the seed system's sequence of fine-tuning, merging and evaluating."""

from itertools import pairwise
from pathlib import Path

import pytest
from commands import COMPARE, EXPERIMENT

from mergers.methods.linear import WiseFT as WiseFTMerger
from pipeline.config.experiment import build
from pipeline.recipes.milestone import Milestone, Role
from pipeline.steps import FineTune, Fisher, Merge, Pretrain, Within
from trainers.strategies.ewc import ElasticWeightConsolidation
from trainers.strategies.lwf import LearningWithoutForgetting
from trainers.strategies.replay import Replay

TASKS = ["parity", "count", "read"]


def milestones(tmp_path: Path, text: str, *overrides: str) -> list[Milestone]:
    file = tmp_path / "e.yaml"
    file.write_text(text)
    return list(build(file, [*overrides, f"workspace={tmp_path}"]).milestones)


@pytest.fixture
def stream(tmp_path: Path) -> list[Milestone]:
    """WiSE-FT over three tasks."""
    return milestones(tmp_path, EXPERIMENT, f"tasks=[{','.join(TASKS)}]", "alpha=0.3")


def test_wise_ft_asks_the_base_and_then_each_stage_before_and_after_its_merge(stream: list[Milestone]) -> None:
    expected = [(0, Role.BASE, None)]
    for stage, task in enumerate(TASKS, start=1):
        expected += [(stage, Role.BEFORE, task), (stage, Role.AFTER, task)]
    assert [(milestone.stage, milestone.role, milestone.task) for milestone in stream] == expected


def test_wise_ft_averages_each_tuned_model_with_the_stage_before_and_goes_on_from_the_average(stream: list[Milestone]) -> None:
    base = stream[0].model
    assert isinstance(base, Pretrain)
    previous = base  # stage 1 fine-tunes the pretrained weights and is averaged with them
    for before, after in zip(stream[1::2], stream[2::2], strict=True):
        tuned, merged = before.model, after.model
        assert isinstance(tuned, FineTune)
        assert tuned.start is previous
        assert tuned.task.name == before.task
        assert isinstance(merged, Merge)
        assert merged.merger == WiseFTMerger(alpha=0.3)
        assert dict(merged.sources) == {"previous": previous, "tuned": tuned}
        previous = merged


def test_both_weights_are_spelled_out(stream: list[Milestone]) -> None:
    assert {milestone.weights for milestone in stream[1:]} == {"0.3 x previous + 0.7 x tuned"}
    merged = stream[2].model
    assert isinstance(merged, Merge)
    assert merged.merger.roles(tuple(merged.sources)) == ("weight 0.3 (alpha)", "weight 0.7")


def test_the_weight_that_is_left_out_is_one_half(tmp_path: Path) -> None:
    found = milestones(tmp_path, EXPERIMENT.replace("alpha: 0.5\n", ""))
    assert found[1].weights == "0.5 x previous + 0.5 x tuned"


def test_every_model_is_asked_the_same(stream: list[Milestone]) -> None:
    assert {milestone.evaluation.suite for milestone in stream} == {stream[0].evaluation.suite}
    assert [task.name for task in stream[0].evaluation.suite.stream] == TASKS
    assert [task.name for task in stream[0].evaluation.suite.held_out] == ["name"]


def test_sequential_merges_nothing_and_goes_on_from_the_tuned_model(tmp_path: Path) -> None:
    text = EXPERIMENT.replace("recipe: wise_ft", "recipe: sequential").replace("alpha: 0.5\n", "")
    found = milestones(tmp_path, text, f"tasks=[{','.join(TASKS)}]")
    assert [(milestone.stage, milestone.role) for milestone in found] == [(0, Role.BASE), *((stage, Role.AFTER) for stage in (1, 2, 3))]
    for earlier, later in pairwise(found):
        assert isinstance(later.model, FineTune)
        assert later.model.start is earlier.model
        assert later.weights == ""


def test_stage_one_of_both_recipes_is_one_step(tmp_path: Path) -> None:
    averaged = milestones(tmp_path, EXPERIMENT)
    plain = milestones(tmp_path, EXPERIMENT.replace("recipe: wise_ft", "recipe: sequential").replace("alpha: 0.5\n", ""))
    assert plain[0].evaluation.fingerprint == averaged[0].evaluation.fingerprint
    assert plain[1].model.fingerprint == averaged[1].model.fingerprint
    assert plain[2].model.fingerprint != averaged[3].model.fingerprint


def test_compare_shares_what_arms_have_in_common_and_nothing_between_seeds(tmp_path: Path) -> None:
    found = milestones(tmp_path, COMPARE)
    assert list(dict.fromkeys((milestone.arm, milestone.seed) for milestone in found)) == [
        ("plain", 0), ("plain", 1), ("averaged", 0), ("averaged", 1),
    ]  # fmt: skip
    of = {(milestone.arm, milestone.seed, milestone.stage, milestone.role): milestone for milestone in found}
    for seed in (0, 1):
        base, first = of["plain", seed, 0, Role.BASE], of["plain", seed, 1, Role.AFTER]
        assert base.evaluation.fingerprint == of["averaged", seed, 0, Role.BASE].evaluation.fingerprint
        assert first.evaluation.fingerprint == of["averaged", seed, 1, Role.BEFORE].evaluation.fingerprint
    assert of["plain", 0, 0, Role.BASE].model.fingerprint != of["plain", 1, 0, Role.BASE].model.fingerprint


def test_an_arm_takes_the_common_keys_and_lays_its_own_over_them(tmp_path: Path) -> None:
    text = COMPARE.replace("    alpha: 0.5", "    alpha: 0.3\n    train: {batch_size: 8}")
    found = milestones(tmp_path, text)
    tuned = next(milestone.model for milestone in found if milestone.arm == "averaged" and milestone.role is Role.BEFORE)
    assert isinstance(tuned, FineTune)
    assert (tuned.train.max_steps, tuned.train.batch_size) == (8, 8)
    assert {milestone.weights for milestone in found if milestone.arm == "plain"} == {""}


def tuned(found: list[Milestone]) -> list[FineTune]:
    """The fine-tunes that are asked, in order."""
    return [milestone.model for milestone in found if isinstance(milestone.model, FineTune)]


def test_a_strategy_goes_with_any_recipe(tmp_path: Path) -> None:
    for text, overrides in ((EXPERIMENT, []), (EXPERIMENT.replace("wise_ft", "sequential").replace("alpha: 0.5\n", ""), [])):
        stages = tuned(milestones(tmp_path, text, "strategy={name: lwf, weight: 0.5}", *overrides))
        assert {stage.strategy for stage in stages} == {LearningWithoutForgetting(weight=0.5)}
        assert all(not stage.earlier and not stage.fishers for stage in stages)


def test_replay_is_given_the_tasks_before(tmp_path: Path) -> None:
    stages = tuned(milestones(tmp_path, EXPERIMENT, f"tasks=[{','.join(TASKS)}]", "strategy={name: replay, ratio: 0.2}"))
    assert [stage.strategy for stage in stages] == [Replay(ratio=0.2)] * 3
    assert [[task.name for task in stage.earlier] for stage in stages] == [[], ["parity"], ["parity", "count"]]


def test_ewc_is_given_the_fisher_information_of_what_each_stage_ended_with(tmp_path: Path) -> None:
    found = milestones(tmp_path, EXPERIMENT, f"tasks=[{','.join(TASKS)}]", "strategy={name: ewc, samples: 50}")
    stages, merged = tuned(found), [milestone.model for milestone in found if milestone.role is Role.AFTER]
    assert stages[0].strategy == ElasticWeightConsolidation(samples=50)
    assert [len(stage.fishers) for stage in stages] == [0, 1, 2]
    fishers = [step for step in stages[2].fishers if isinstance(step, Fisher)]
    assert [(step.model, step.task.name, step.samples, step.parts) for step in fishers] == [
        (model, task, 50, stages[0].train.parts) for model, task in zip(merged[:2], TASKS[:2], strict=True)
    ]


def test_joint_learns_all_tasks_so_far_from_the_base(tmp_path: Path) -> None:
    found = milestones(tmp_path, EXPERIMENT.replace("wise_ft", "joint").replace("alpha: 0.5\n", ""), f"tasks=[{','.join(TASKS)}]")
    stages = tuned(found)
    assert [stage.task.name for stage in stages] == ["parity", "parity+count", "parity+count+read"]
    assert {stage.start for stage in stages} == {found[0].model}
    assert [stage.train.max_steps for stage in stages] == [8, 16, 24]


def test_models_within_a_stage_are_asked_before_its_end(tmp_path: Path) -> None:
    found = milestones(tmp_path, EXPERIMENT, "train.milestones=[4, 1]")
    first = [milestone for milestone in found if milestone.stage == 1]
    assert [(milestone.role, milestone.step) for milestone in first] == [
        (Role.WITHIN, 1),
        (Role.WITHIN, 4),
        (Role.BEFORE, None),
        (Role.AFTER, None),
    ]
    within, before = first[0].model, first[2].model
    assert isinstance(within, Within)
    assert (within.tuned, within.at) == (before, 1)
