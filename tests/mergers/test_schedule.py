"""Hyperparameters that differ per tensor: globs, gradients over depth, what is refused, and a merge that follows them."""

import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from merge_bench import Bench

from foundation.errors import ConfigError
from mergers import WeightedAverage, WiseFT, method_name, plan_merge
from mergers.depth import depths
from mergers.merger import Granularity, Inputs, Merger, Need
from mergers.methods.task_arithmetic import TaskArithmetic
from mergers.methods.ties import Ties, TiesPerTensor
from mergers.schedule import Schedule, Scheduled, level_at, resolve_mergers
from mergers.table import hyperparameters

LLAMA = ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"] + [
    f"model.layers.{layer}.{part}.weight" for layer in range(5) for part in ("mlp.up_proj", "self_attn.q_proj", "input_layernorm")
]


def scheduled(*rules: tuple[str, float | tuple[float, ...]]) -> Scheduled:
    """WiSE-FT whose alpha follows rules."""
    return Scheduled(WiseFT(0.5), (("alpha", Schedule(rules)),))


def alphas(merger: Merger, names: list[str]) -> dict[str, float]:
    return {name: hyperparameters(found)["alpha"] for name, found in resolve_mergers(merger, names).items()}


# Depth


def test_depth_is_the_layer_over_the_highest_and_0_outside() -> None:
    found = depths(LLAMA)
    assert [found[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert {found[name] for name in LLAMA[:3]} == {0.0}


def test_each_tower_has_its_own_numbers() -> None:
    names = [f"model.visual.blocks.{n}.mlp.fc1.weight" for n in range(3)] + [f"model.language_model.layers.{n}.w" for n in range(11)]
    found = depths(names)
    assert found["model.visual.blocks.1.mlp.fc1.weight"] == 0.5
    assert found["model.language_model.layers.1.w"] == 0.1


def test_an_experts_number_is_not_a_layer() -> None:
    names = [f"model.layers.{layer}.mlp.experts.{expert}.w1.weight" for layer in range(3) for expert in range(8)]
    assert {depths(names)[name] for name in names if name.startswith("model.layers.1.")} == {0.5}


def test_numbers_that_count_no_layers() -> None:
    names = ["mm_projector.0.weight", "mm_projector.2.weight", "head.0.weight", "model.layers.0.w", "model.layers.1.w"]
    assert depths(names) == {**dict.fromkeys(names, 0.0), "model.layers.1.w": 1.0}


# Values


def test_a_gradient_has_the_values_that_mergekit_gives_it() -> None:
    # Measured with mergekit 0.1.5 on a five-layer Llama: `linear` of a model of zeros and one of ones shows each tensor's weight.
    assert [level_at((0, 1, 5, 2), layer / 4) for layer in range(5)] == [0, 0.75, 3, 4.25, 2]
    found = alphas(scheduled(("*", (0.0, 1.0))), LLAMA)
    assert [found[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert {found[name] for name in LLAMA[:3]} == {0}


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9), st.floats(-1, 2))
def test_a_gradient_stays_between_its_neighbours(values: list[float], depth: float) -> None:
    found = level_at(tuple(values), depth)
    place = min(max(depth, 0), 1) * (len(values) - 1)
    near = values[int(place) : int(place) + 2]
    slack = 1e-9 * max(1, *map(abs, near))  # two roundings of values up to 1e6
    assert min(near) - slack <= found <= max(near) + slack


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
def test_a_gradient_begins_and_ends_with_its_own_numbers(values: list[float]) -> None:
    assert (level_at(tuple(values), 0), level_at(tuple(values), 1)) == (values[0], values[-1])


def test_the_first_glob_that_matches_counts() -> None:
    found = alphas(scheduled(("*.mlp.*", 0.3), ("model.layers.0.*", 0.1), ("*", 0.5)), LLAMA)
    assert found["model.layers.0.mlp.up_proj.weight"] == 0.3
    assert found["model.layers.0.self_attn.q_proj.weight"] == 0.1
    assert found["lm_head.weight"] == 0.5


def test_each_source_may_have_its_own_schedule() -> None:
    merger = Scheduled(WeightedAverage(), (("weights", (Schedule((("*", (0.0, 1.0)),)), Schedule((("*", (1.0, 0.0)),)))),))
    merger.check(["a", "b"])
    found = resolve_mergers(merger, LLAMA, ["a", "b"])
    assert found["model.layers.1.mlp.up_proj.weight"] == WeightedAverage((0.25, 0.75))
    assert merger.roles(["a", "b"]) == ("weight 0 or weight 1, by tensor", "weight 1 or weight 0, by tensor")


def test_weights_can_be_scaled_to_sum_to_1_in_each_tensor() -> None:
    weights = (Schedule((("*.mlp.*", 3.0), ("*", 1.0))), 1.0)
    merger = Scheduled(WeightedAverage(), (("weights", weights),), normalized=("weights",))
    found = resolve_mergers(merger, LLAMA, ["a", "b"])
    assert found["model.layers.1.mlp.up_proj.weight"] == WeightedAverage((0.75, 0.25))
    assert found["lm_head.weight"] == WeightedAverage((0.5, 0.5))
    nothing = Scheduled(WeightedAverage(), (("weights", (Schedule((("*", (0.0, 1.0)),)), 0.0)),), normalized=("weights",))
    with pytest.raises(ConfigError, match="must sum to more than 0"):
        resolve_mergers(nothing, LLAMA)


def test_tensors_that_share_their_values_share_one_object() -> None:
    plain = WiseFT(0.5)
    assert all(found is plain for found in resolve_mergers(plain, LLAMA).values())
    found = resolve_mergers(scheduled(("*.mlp.*", 0.3), ("*", 0.5)), LLAMA)
    assert len({id(each) for each in found.values()}) == 2
    assert list(found) == LLAMA


# Refusals


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((), "a schedule needs rules"),
        ((("", 0.5),), "a schedule needs rules"),
        ((("*", 0.5), ("*", 0.6)), r"the glob '\*' has two values"),
        ((("*", (0.5,)),), r"the gradient of '\*' has 1 values"),
    ],
)
def test_rules_that_make_no_schedule(rules: tuple[tuple[str, float], ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(rules)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((("*.mlpp.*", 0.5), ("*", 0.1)), r"'\*\.mlpp\.\*' matches none of 18 tensors; did you mean 'mlp'\? Names look like 'model\."),
        ((("*.mlp.*", 0.5),), r"no rule covers tensor 'lm_head.weight' \(\{\*\.mlp\.\*: 0\.5\}\); add one"),
        ((("*", 0.5), ("*.mlp.*", 0.1)), r"'\*\.mlp\.\*' never counts, because '\*' stands before it .* e\.g\. 'model\.layers\.0\.mlp"),
    ],
)
def test_rules_that_do_not_fit_the_tensors(rules: tuple[tuple[str, float], ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_mergers(scheduled(*rules), LLAMA)


def test_a_closing_star_may_have_nothing_left() -> None:
    assert set(alphas(scheduled(("model.*", 0.1), ("lm_head.*", 0.2), ("*", 0.9)), LLAMA).values()) == {0.1, 0.2}


@pytest.mark.parametrize("level", [1.5, (0.0, 1.0, 1.5, 0.0), (0.2, float("nan"))])
def test_every_value_that_a_rule_can_give_is_checked_before_tensors_are_known(level: float | tuple[float, ...]) -> None:
    merger = scheduled(("*.self_attn.*", 0.2), ("*.mlp.*", level), ("*", 0.1))
    with pytest.raises(ConfigError, match=r"where '\*\.mlp\.\*' matches: alpha is (1.5|nan)"):
        merger.check(["previous", "tuned"])


def test_values_that_only_some_tensor_brings_together_are_checked_with_the_tensors() -> None:
    weights = (Schedule((("*.mlp.*", 0.3), ("*", 0.5))), Schedule((("model.layers.0.*", 0.6), ("*.mlp.*", 0.7), ("*", 0.5))))
    merger = Scheduled(WeightedAverage(), (("weights", weights),))
    with pytest.raises(ConfigError, match=r"for tensor 'model.layers.0.mlp.up_proj.weight': weights sum to 0.9"):
        resolve_mergers(merger, LLAMA, ["a", "b"])


def test_a_method_that_counts_over_the_whole_model_is_not_split_unasked() -> None:
    rules = Schedule((("*.mlp.*", 0.1), ("*", 0.3)))
    Scheduled(Ties(), (("density", rules),)).check(["a"])
    Scheduled(TiesPerTensor(), (("scale", rules),)).check(["a"])
    with pytest.raises(ConfigError, match=r"Ties counts over the whole model at once, so scale cannot differ per tensor.*ties_per_tensor"):
        Scheduled(Ties(), (("scale", rules),)).check(["a"])


# As a merger


def test_it_has_what_its_method_has() -> None:
    merger = Scheduled(TiesPerTensor(density=1.0), (("density", Schedule((("*.mlp.*", 0.1), ("*", 1.0)))),))
    assert (merger.granularity, merger.base, merger.statistic, merger.pooled) == (Granularity.ELEMENT, Need.REQUIRED, None, False)
    assert merger.rounds == TiesPerTensor(density=0.1).rounds > TiesPerTensor(density=1.0).rounds == 0
    assert merger.files_from(["a"]) is None
    assert scheduled(("*", 0.5)).files_from(["previous", "tuned"]) == "tuned"
    assert method_name(merger) == "ties_per_tensor"
    assert str(merger) == "TiesPerTensor(density={*.mlp.*: 0.1, *: 1.0}, weights=None, scale=1.0, normalize=True)"
    assert hyperparameters(merger)["density"] == "{*.mlp.*: 0.1, *: 1.0}"
    assert pickle.loads(pickle.dumps(merger)) == merger


def test_it_cannot_be_used_as_if_it_were_plain() -> None:
    with pytest.raises(RuntimeError, match="resolve_mergers"):
        scheduled(("*", 0.5)).merge(Inputs("x", 0, (torch.zeros(1),), (0,)))


def test_a_merge_follows_the_schedule(bench: Bench) -> None:
    generator = torch.Generator().manual_seed(0)
    models = {name: {tensor: torch.randn(4, 6, generator=generator) for tensor in LLAMA} for name in ("base", "a", "b")}
    paths = {name: bench.save(name, tensors) for name, tensors in models.items()}
    rules = Schedule((("*.mlp.*", (0.0, 1.0)), ("lm_head.*", 2.0), ("*", 0.5)))
    merger = Scheduled(TaskArithmetic(weights=(1.0, -1.0)), (("scale", rules),))
    bench.merge(merger, options={"base": bench.sources(base=paths["base"])[0]}, a=paths["a"], b=paths["b"])
    for name, found in bench.load().items():
        scale = 2.0 if name.startswith("lm_head") else int(name.split(".")[2]) / 4 if ".mlp." in name else 0.5
        base, a, b = (models[each][name].double() for each in ("base", "a", "b"))
        # Three float32 additions of values below 10 in size: an error of a few times 2^-24 of that.
        torch.testing.assert_close(found.double(), base + scale * ((a - base) - (b - base)), rtol=0, atol=1e-5)


def test_the_plan_refuses_a_glob_that_matches_nothing(bench: Bench) -> None:
    paths = {name: bench.save(name, {"model.layers.0.mlp.w": torch.zeros(2)}) for name in ("previous", "tuned")}
    with pytest.raises(ConfigError, match="matches none of 1 tensors"):
        plan_merge(scheduled(("*.attn.*", 0.1), ("*", 0.5)), bench.sources(**paths), bench.root / "out")
