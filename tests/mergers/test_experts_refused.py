"""What a merge of experts refuses before any work, and what the output's config.json may be told."""

import json

import pytest
from small_experts import saved, tensors_of

from foundation.errors import ConfigError, InputError
from mergers import Source, WeightedAverage, execute, plan_merge
from mergers.experts import (
    METHODS,
    SHARED_CONFIG,
    expert_merger,
    expert_sources,
    interpolation,
    modality_arithmetic,
    needs_base,
    needs_statistic,
)
from mergers.sources.source import Identity
from mergers.sources.views import Expert


def test_a_config_that_still_speaks_of_experts_is_refused(bench):
    sources = expert_sources(saved(bench, "moe", "ffn", tensors_of("ffn")))
    with pytest.raises(ConfigError, match=r"config\.json would say sharing: ffn .*; set config: \{sharing: shared\}"):
        plan_merge(interpolation(), sources, bench.root / "out")
    plan = plan_merge(interpolation(), sources, bench.root / "out", config=SHARED_CONFIG)
    execute(plan)
    assert "note: in config.json sharing is 'shared' ('ffn' in 'v')" in plan.describe()
    assert "- in config.json sharing is 'shared' ('ffn' in 'v')" in (bench.root / "out" / "README.md").read_text()


def test_a_view_that_forgets_an_expert_is_refused(bench):
    checkpoint = saved(bench, "moe", "ffn", tensors_of("ffn"))
    sources = [Source(name, checkpoint, Expert(name, ("v", "l"))) for name in ("v", "l")]
    with pytest.raises(ConfigError, match=r"2\.mlp\.vl\.fc1\.bias' would stay in the output .* the expert vl's; .* of: \[v, l, vl\]"):
        plan_merge(interpolation(0.5, ("v", "l")), sources, bench.root / "out", config=SHARED_CONFIG)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"sharnig": "shared"},
            r"config: unknown key 'sharnig'; did you mean 'sharing'\?.* only what config\.json of 'v' holds can be set",
        ),
        ({"sharing": 3}, r"config: sharing is 3; config\.json of 'v' has 'ffn', give a value of that kind"),
        ({"sharing": float("nan")}, "config: sharing is nan; "),
        ({"model_type": "bert"}, "config: model_type follows from what is written; leave it out"),
    ],
)
def test_what_the_config_may_not_be_told(bench, config, message):
    sources = expert_sources(saved(bench, "moe", "ffn", tensors_of("ffn")))
    with pytest.raises(ConfigError, match=message):
        plan_merge(interpolation(), sources, bench.root / "out", config=config)


def test_any_merge_may_set_its_config_and_an_equal_value_changes_no_byte(bench):
    checkpoint = saved(bench, "a", "shared", tensors_of("shared"))
    sources = [Source(name, checkpoint, Identity()) for name in ("a", "b")]
    for number, heads in enumerate((["itc"], [])):
        execute(plan_merge(WeightedAverage(), sources, bench.root / f"out{number}", config={"heads": heads}))
    before = (bench.root / "a" / "config.json").read_bytes()
    assert (bench.root / "out0" / "config.json").read_bytes() == before
    assert json.loads((bench.root / "out1" / "config.json").read_bytes()) == json.loads(before) | {"heads": []}


# --- what is refused ---


def test_what_would_be_lost_is_refused(bench):
    held = {name: tensor for name, tensor in tensors_of("all").items() if "layers.2.norm1" not in name or ".vl." in name}
    with pytest.raises(InputError, match=r"2 of 59 tensors would be lost, e\.g\. 'encoder\.layers\.2\.norm1\.bias', which expert 'vl' has"):
        plan_merge(
            interpolation(0.5, ("v", "l")), expert_sources(saved(bench, "moe", "all", held), used_by="retrieval"), bench.root / "out"
        )


def test_a_checkpoint_without_experts_and_unknown_tasks_are_refused(bench):
    shared, experts = saved(bench, "shared", "shared", tensors_of("shared")), saved(bench, "moe", "ffn", tensors_of("ffn"))
    with pytest.raises(InputError, match="has no experts: no tensor's name has such a component"):
        expert_sources(shared)
    with pytest.raises(InputError, match=r"has no expert 'a'.* \(it has v, l, vl\)"):
        expert_sources(experts, ("v", "a"))
    with pytest.raises(ConfigError, match=r"used_by: unknown task 'vqq'; did you mean 'vqa'\?"):
        expert_sources(experts, used_by="vqq")
    with pytest.raises(ConfigError, match=r"of the experts only v would be merged \(used_by: retrieval\)"):
        expert_sources(experts, ("v", "vl"), "retrieval")


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("interpolatoin", {}, "unknown method 'interpolatoin'; did you mean 'interpolation'"),
        ("interpolation", {"ration": 0.5}, "interpolation: unknown parameter 'ration'; did you mean 'ratio'"),
        ("interpolation", {"ratio": "0.5"}, "interpolation: ratio is '0.5'; give a number"),
        ("interpolation", {"ratio": 1.5}, "ratio is 1.5; it is the vision expert's weight"),
        ("sequential_arithmetic", {"scale": 1.5}, "scale is 1.5; it is the share of the way"),
        ("regmean", {"missing": "skip"}, "missing is 'skip'"),
        ("dare_linear", {}, "dare_linear needs density; give it a value"),
        ("ties", {"normalize": 1}, "ties: normalize is 1; give true or false"),
        ("wise_ft", {}, "wise_ft merges exactly two sources named previous, tuned"),
    ],
)
def test_methods_that_are_not_there_and_values_that_will_not_do(method, parameters, message):
    with pytest.raises(ConfigError, match=message):
        expert_merger(method, parameters)


def test_methods_by_name():
    assert expert_merger("interpolation", {"ratio": 0.25}, ("v", "l")) == WeightedAverage((0.25, 0.75))
    assert expert_merger("arithmetic", {"scale": 0.75}) == modality_arithmetic(0.75)
    assert expert_merger("regmean", {"off_diagonal": 0}).off_diagonal == 0
    assert expert_merger("ties", {"density": 0.2}).density == 0.2
    assert [name for name in METHODS if needs_base(name)] == ["arithmetic", "sequential_arithmetic"]
    assert [needs_statistic(name) for name in (*METHODS, "fisher")] == [None, None, None, "gram", "fisher"]
