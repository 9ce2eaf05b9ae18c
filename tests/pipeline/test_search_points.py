"""From points to mergers, and what no search could honour: all without a model."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.suite import Suite
from foundation.errors import ConfigError, InputError
from mergers.methods.dare import DareTies
from mergers.methods.linear import WeightedAverage, WiseFT
from mergers.methods.slerp import NuSlerp
from mergers.methods.task_arithmetic import TaskArithmetic
from mergers.methods.ties import Ties
from mergers.schedule import Schedule, Scheduled
from pipeline.search.checks import check_spec, check_suite
from pipeline.search.points import described, merger_at
from pipeline.search.spec import Axis, Goal, SearchSpec
from tasks.registry import get_task
from tasks.task import Split

ALPHA = Axis("alpha", 0.0, 1.0)
STAGE = ("previous", "tuned")


def spec_of(method: str, *axes: Axis | str, fixed: dict[str, Any] | None = None, **changes: Any) -> SearchSpec:
    """Axes given by name go from 0 to 1."""
    ranges = tuple(Axis(axis, 0.0, 1.0) if isinstance(axis, str) else axis for axis in axes)
    return SearchSpec(method, ranges, tuple((fixed or {}).items()), **changes)


def at(method: str, point: dict[str, Any], fixed: dict[str, Any] | None = None, sources: tuple[str, ...] = STAGE) -> Any:
    return merger_at(spec_of(method, *point, fixed=fixed), point, sources)


@given(st.floats(0, 1))
def test_a_hyperparameter_of_the_method(alpha: float) -> None:
    assert at("wise_ft", {"alpha": alpha}) == WiseFT(alpha)


def test_several_hyperparameters_with_fixed_ones() -> None:
    assert at("ties", {"density": 0.5, "scale": 2.0}, {"normalize": False}) == Ties(density=0.5, scale=2.0, normalize=False)


def test_a_gradient_over_depth() -> None:
    found = at("wise_ft", {"alpha.0": 0.1, "alpha.1": 0.9})
    assert found == Scheduled(WiseFT(0.1), (("alpha", Schedule((("*", (0.1, 0.9)),))),))


def test_globs_and_what_they_leave() -> None:
    glob = "alpha[*.layers.0.*]"

    def schedule(found: Scheduled) -> Schedule:
        ((name, value),) = found.parameters
        assert name == "alpha"
        assert isinstance(value, Schedule)
        return value

    first = ("*.layers.0.*", 0.2)
    assert schedule(at("wise_ft", {glob: 0.2})).rules == (first, ("*", 0.5)), "the method's own"
    assert schedule(at("wise_ft", {glob: 0.2}, {"alpha": 0.7})).rules == (first, ("*", 0.7)), "the fixed value"
    assert schedule(at("wise_ft", {glob: 0.2, "alpha": 0.9})).rules == (first, ("*", 0.9)), "the plain axis"
    fixed = {"alpha": Schedule((("*.layers.0.*", 0.3), ("*.mlp.*", 0.4), ("*", 0.6)))}
    assert schedule(at("wise_ft", {glob: 0.2}, fixed)).rules == (first, ("*.mlp.*", 0.4), ("*", 0.6)), "a fixed schedule's other rules"


def test_a_value_per_source() -> None:
    assert at("weighted_average", {"weights.tuned": 0.3}) == WeightedAverage((0.7, 0.3)), "what is left to 1"
    assert at("weighted_average", {"weights.b": 0.4}, sources=("a", "b", "c")) == WeightedAverage((0.3, 0.4, 0.3))
    assert at("task_arithmetic", {"weights.tuned": -0.5}) == TaskArithmetic((1.0, -0.5)), "weights that need not sum to 1"
    assert at("task_arithmetic", {"weights.tuned": -0.5}, {"weights": (2.0, 3.0)}) == TaskArithmetic((2.0, -0.5)), "fixed ones"
    assert at("nuslerp", {"weights.previous": 3.0}) == NuSlerp((3.0, 1.0)), "the method's own"
    assert at("ties", {"density.tuned": 0.9}) == Ties(density=(0.2, 0.9))
    assert at("dare_ties", {"density": 0.5, "density.tuned": 0.9}, {"seed": 1}) == DareTies(density=(0.5, 0.9), seed=1)
    layered = at("task_arithmetic", {"weights.tuned[*.mlp.*]": 0.5})
    assert layered.parameters == (("weights", (1.0, Schedule((("*.mlp.*", 0.5), ("*", 1.0))))),)


def test_the_method_itself() -> None:
    spec = spec_of("wise_ft", Axis("method", values=("wise_ft", "slerp")), ALPHA, Axis("weight", values=(0.25,)))
    assert merger_at(spec, {"method": "wise_ft", "alpha": 0.25}) == WiseFT(0.25)
    found = merger_at(spec, {"method": "slerp", "weight": 0.25})
    assert type(found).__name__ == "Slerp"
    check_spec(spec, STAGE, based=False)


def test_a_point_in_words() -> None:
    assert described({"method": "ties", "density": 1 / 3, "scale": 1}) == "method=ties, density=0.333333, scale=1"


@pytest.mark.parametrize(
    ("spec", "based", "message"),
    [
        (spec_of("wise_ft", "alhpa"), False, r"unknown parameter of wise_ft 'alhpa'; did you mean 'alpha'\?"),
        (spec_of("wise_ft", ALPHA, fixed={"scale": 1.0}), False, "unknown parameter of wise_ft 'scale'"),
        (spec_of("wise_ft", ALPHA, fixed={"alpha": 0.5}), False, "alpha is both searched and fixed"),
        (spec_of("wise_fit", ALPHA), False, "did you mean 'wise_ft'"),
        (spec_of("wise_ft", Axis("alpha", 0.0, 1.5)), False, "at alpha=1.5: alpha is 1.5; .* between 0 and 1"),
        (spec_of("wise_ft", Axis("alpha", -0.5, 1.0)), False, "at alpha=-0.5"),
        (spec_of("wise_ft", Axis("alpha", values=(0.5, 2.0))), False, "at alpha=2: "),
        (
            spec_of("wise_ft", Axis("alpha[*.mlp.*]", 0.5, 2.0)),
            False,
            r"\.\*\]=2: where '\*\.mlp\.\*' matches: alpha is 2",
        ),
        (spec_of("wise_ft", Axis("alpha", values=("much",))), False, "alpha cannot be 'much'; give numbers"),
        (spec_of("wise_ft", "alpha.0", "alpha.2"), False, "has alpha.0, alpha.2; number at least two from alpha.0 on"),
        (spec_of("wise_ft", "alpha.0", "alpha.1", "alpha"), False, "beside alpha itself"),
        (spec_of("wise_ft", "alpha.tuned"), False, "alpha.tuned is no number of a gradient"),
        (spec_of("wise_ft", "alpha[]"), False, "names no parameter"),
        (spec_of("wise_ft", ALPHA), True, "no use for a base"),
        (spec_of("ties", "scale"), False, "ties measures every source from a base checkpoint"),
        (spec_of("ties", "density"), True, "at density=0: "),
        (spec_of("ties", Axis("normalize", 0.0, 1.0)), True, "normalize of ties cannot be 0.0: .* by values in place of a range"),
        (spec_of("ties", "weights"), True, "weights has a value per source; search weights.previous or weights.tuned"),
        (spec_of("ties", "weights.new"), True, "weights.new is no source's; the sources are previous, tuned"),
        (spec_of("weighted_average", "weights.previous", "weights.tuned"), False, "weights sum to 0"),
        (spec_of("fisher", "weights.tuned"), False, "fisher needs the statistics of every source"),
        (spec_of("wise_ft", Axis("method", 0.0, 1.0)), False, "method has no range"),
        (spec_of("wise_ft", Axis("method", values=("wise_ft", "sleerp")), ALPHA), False, "did you mean 'slerp'"),
    ],
)
def test_refused_before_anything_runs(spec: SearchSpec, based: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_spec(spec, STAGE, based)


def test_every_combination_of_ends_is_tried() -> None:
    spec = spec_of("weighted_average", Axis("weights.a", 0.1, 0.6), Axis("weights.b", 0.1, 0.6))
    with pytest.raises(ConfigError, match=r"at weights\.a=0\.6, weights\.b=0\.6: the weight of 'c' is -0\.2;"):
        check_spec(spec, ("a", "b", "c"), based=False)


SUITE = Suite((get_task("parity"), get_task("count")), (get_task("name"),), Split.VALIDATION, 4)


@pytest.mark.parametrize(
    ("goal", "suite", "new", "message"),
    [
        (Goal.AVERAGE, replace(SUITE, split=Split.TEST), None, "the suite asks the test split; .* validation data only"),
        (Goal.HELD_OUT, replace(SUITE, held_out=()), None, "the suite has none"),
        (Goal.STREAM, replace(SUITE, stream=()), None, "goal stream needs tasks of a stream"),
        (Goal.NEW, SUITE, None, "the goal new judges the task just learned, and none is named"),
        (Goal.BALANCED, SUITE, "cout", "unknown task 'cout'; did you mean 'count'"),
        (Goal.BALANCED, Suite((get_task("count"),), (), Split.VALIDATION), "count", "asks no others"),
    ],
)
def test_goals_that_no_task_yields(goal: Goal, suite: Suite, new: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_suite(spec_of("wise_ft", ALPHA, goal=goal), suite, new)


def test_a_task_without_validation_questions(tmp_path) -> None:
    from pipeline.config.data_settings import Data

    (tmp_path / "train.json").write_text('[{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]')
    task = Data(train=str(tmp_path / "train.json")).task("mine", None)
    with pytest.raises(InputError, match="task 'mine' has no validation questions to choose by"):
        check_suite(spec_of("wise_ft", ALPHA), replace(SUITE, held_out=(task,)), None)
