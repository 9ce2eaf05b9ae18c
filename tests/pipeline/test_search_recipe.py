"""A searched alpha and a searched rate in an experiment's file: what is refused, and the steps they become."""

from pathlib import Path

import pytest
from commands import changed

from foundation.errors import ConfigError
from mergers.methods.linear import WiseFT
from pipeline.config.experiment import build, read_config
from pipeline.recipes.milestone import Role
from pipeline.steps import Chosen, Evaluate, FineTune, Merge, MergeAdaptive, MergePicked, Search
from tasks.task import Split


def written(place: Path, text: str) -> Path:
    path = place / "small.yaml"
    path.write_text(text)
    return path


def searching(alpha: str) -> str:
    return changed("alpha: 0.5", alpha)


@pytest.mark.parametrize(
    ("alpha", "said"),
    [
        ("search: {low: 0.9, high: 0.1}", r"alpha goes from 0\.9 to 0\.1; low must lie below high"),
        ("search: {low: 0, high: 2.0}", r"search\.high is 2\.0; give at most 1"),
        ("search: {goal: avrage}", r"unknown value 'avrage'; did you mean 'average'"),
        ("search: {point: 5}", r"unknown key 'search\.point'; did you mean 'points'"),
        ("search: {points: 0}", r"points"),
        ("search: {values: [0.1, 0.1]}", r"alpha names a value twice"),
        ("alpha: {search: {points: 3}}\nsearch: {points: 5}", r"alpha is told twice"),
    ],
)
def test_a_search_that_could_not_be_honoured_is_refused(tmp_path: Path, alpha: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_config(written(tmp_path, searching(alpha)))


def test_a_searched_alpha_asks_nothing_of_the_future_and_nothing_of_test(tmp_path: Path) -> None:
    built = build(written(tmp_path, searching("alpha: {search: {points: 3, samples: 8}}")), [f"workspace={tmp_path}"])
    searches = [step for step in built.steps if isinstance(step, Search)]
    assert [[task.name for task in step.suite.stream] for step in searches] == [["parity"], ["parity", "count"]]
    assert {step.suite.split for step in searches} == {Split.VALIDATION}
    assert [step.new for step in searches] == ["parity", "count"]
    merged = [step for step in built.steps if isinstance(step, MergePicked)]
    assert [step.search for step in merged] == searches
    tuned = [step for step in built.steps if isinstance(step, FineTune)]
    assert tuned[1].start is merged[0]
    assert searches[1].sources == {"previous": merged[0], "tuned": tuned[1]}


def test_how_a_search_is_spread_changes_no_fingerprint(tmp_path: Path) -> None:
    path, place = written(tmp_path, searching("search: {points: 3, samples: 8}")), f"workspace={tmp_path}"
    assert build(path, [place]).identity == build(path, [place, "search.workers=4", "search.gpus=1"]).identity
    assert build(path, [place]).identity != build(path, [place, "search.goal=new"]).identity
    same = written(tmp_path, searching("alpha: {search: {points: 3, samples: 8}}"))
    assert build(same, [place]).identity == build(same, [place, "alpha.search.workers=2"]).identity


def test_depth_gives_an_alpha_per_part_of_the_model(tmp_path: Path) -> None:
    built = build(written(tmp_path, searching("search: {depth: 2, algorithm: random, trials: 4}")), [f"workspace={tmp_path}"])
    search = next(step for step in built.steps if isinstance(step, Search))
    assert [axis.name for axis in search.spec.axes] == ["alpha.0", "alpha.1"]


def test_an_adaptive_alpha_starts_with_a_number(tmp_path: Path) -> None:
    built = build(written(tmp_path, searching("alpha: {adaptive: {rule: along_past, first: 0.3}}")), [f"workspace={tmp_path}"])
    first, second = (milestone.model for milestone in built.milestones if milestone.role is Role.AFTER)
    assert isinstance(first, Merge)
    assert first.merger == WiseFT(0.3)
    assert isinstance(second, MergeAdaptive)
    assert (second.rule, second.past, second.sources["previous"], second.base) == ("along_past", 1, first, built.milestones[0].model)
    with pytest.raises(ConfigError, match="search and adaptive both choose alpha"):
        read_config(written(tmp_path, searching("search: {points: 3}\nadaptive: {rule: isotropic}")))


def test_a_searched_rate_trains_every_stream_and_keeps_the_best_by_validation(tmp_path: Path) -> None:
    text = changed("recipe: wise_ft", "recipe: sequential")
    text = changed("alpha: 0.5", "search: {rates: [1e-4, 1e-3], samples: 8}", text)
    built = build(written(tmp_path, text), [f"workspace={tmp_path}"])
    tuned = [step for step in built.steps if isinstance(step, FineTune)]
    assert sorted({step.train.learning_rate for step in tuned}) == [1e-4, 1e-3]
    assert len(tuned) == 4
    chosen = [step for step in built.steps if isinstance(step, Chosen)]
    assert [step.names for step in chosen] == [("0.0001", "0.001")] * 2
    judged = {step for one in chosen for step in one.judged}
    assert all(isinstance(step, Evaluate) and step.suite.split is Split.VALIDATION for step in judged)
    shown = [milestone.evaluation.suite.split for milestone in built.milestones]
    assert set(shown) == {Split.TEST}
    with pytest.raises(ConfigError, match=r"train\.learning_rate has no place beside it"):
        read_config(written(tmp_path, changed("  samples: 64", "  samples: 64\n  learning_rate: 1e-3", text)))
