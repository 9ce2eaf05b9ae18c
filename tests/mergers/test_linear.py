"""The average itself: parity with the formula in float64, the identities that hold to the bit, and what weights are refused."""

import pytest
import torch
from every_method import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import bits

from foundation.errors import ConfigError
from mergers import Inputs, WeightedAverage, WiseFT, merger_class, method_name
from mergers.methods.linear import average, interpolate

HALF = [torch.bfloat16, torch.float16]
FLOATS = [*HALF, torch.float32, torch.float64]


def random(count, dtype, seed):
    """Values over many magnitudes, with signed zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, generator=generator) * 10.0 ** torch.randint(-4, 3, (count,), generator=generator)
    values[::7] = -0.0
    values[::11] = 0.0
    return values.to(dtype)


def naive(tensors, weights):
    return sum(weight * tensor.double() for tensor, weight in zip(tensors, weights, strict=True))


weights_strategy = st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda w: sum(w) > 0.1).map(lambda w: [x / sum(w) for x in w])


@settings(max_examples=200, deadline=None)
@given(weights=weights_strategy, count=st.integers(1, 300), seed=st.integers(0, 1 << 30), dtype=st.sampled_from(FLOATS))
def test_average_is_the_formula_within_its_rounding(weights, count, seed, dtype):
    tensors = [random(count, dtype, seed + index) for index in range(len(weights))]
    result = average(tensors, weights).double()
    largest = torch.stack([tensor.double().abs() for tensor in tensors]).amax(0)
    # N products and sums in the compute dtype, each off by at most half its epsilon of the largest term (difference: twice it) ...
    compute = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    allowed = 4 * len(weights) * compute * largest
    if dtype in HALF:  # ... then at most one rounding to the half-precision dtype, whose smallest step is `tiny * eps`
        info = torch.finfo(dtype)
        allowed += info.eps / 2 * largest + info.tiny * info.eps
    assert ((result - naive(tensors, weights)).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("count", [2, 3, 5])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_equal_inputs_give_themselves_back_to_the_bit(dtype, count, data):
    weights = data.draw(st.lists(st.floats(0.01, 1), min_size=count, max_size=count).map(lambda w: [x / sum(w) for x in w]))
    tensor = random(997, dtype, seed=3)
    assert bits(average([tensor.clone() for _ in range(count)], weights).to(dtype)) == bits(tensor)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_equal_elements_survive_among_unequal_ones(dtype, alpha):
    first, second = random(2000, dtype, 1), random(2000, dtype, 2)
    second[::2] = first[::2]
    merged = average([first, second], [alpha, 1 - alpha]).to(dtype)
    assert bits(merged[::2]) == bits(first[::2])
    assert bits(average([first, second, second], [0.2, 0.3, 0.5]).to(dtype)[::2]) == bits(first[::2])


@pytest.mark.parametrize("dtype", FLOATS)
def test_alpha_is_the_weight_of_the_previous_model(dtype):
    previous, tuned = random(500, dtype, 1), random(500, dtype, 2)
    inputs = Inputs("w", 0, (previous, tuned), (0, 1))
    assert bits(WiseFT(alpha=1.0).merge(inputs)) == bits(previous)
    assert bits(WiseFT(alpha=0.0).merge(inputs)) == bits(tuned)
    assert WiseFT(alpha=0.1).weights == {"previous": 0.1, "tuned": 0.9}
    mostly_tuned = WiseFT(alpha=0.1).merge(inputs).double()
    assert (mostly_tuned - tuned.double()).norm() < (mostly_tuned - previous.double()).norm()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("weight", [0.1, 0.3, 0.499, 0.5, 0.7, 0.9])
def test_half_precision_lerp_is_float32_lerp_rounded_once(dtype, weight):
    first = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(dtype)  # every value of the dtype
    first = first[first.isfinite()]
    for seed in range(4):
        second = first[torch.randperm(len(first), generator=torch.Generator().manual_seed(seed))]
        by_hand = torch.lerp(first.float(), second.float(), weight).to(dtype)
        finite = by_hand.isfinite()
        assert torch.equal(average([first, second], [1 - weight, weight])[finite], by_hand[finite])


def test_bfloat16_sums_drift_and_ours_do_not():
    """Seed defect 1: accumulating in bfloat16 changed 8.9 % of weights that both checkpoints share, at weights 0.1 and 0.9."""
    frozen = torch.randn(100_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    drifted = 0.1 * frozen + 0.9 * frozen
    assert (drifted != frozen).float().mean() > 0.05  # the control: the fault is there to be found
    assert bits(average([frozen, frozen.clone()], [0.1, 0.9])) == bits(frozen)
    assert bits(average([frozen] * 3, [0.3, 0.3, 0.4]).bfloat16()) == bits(frozen)


def test_a_source_of_weight_zero_takes_no_part():
    clean, broken = torch.ones(3), torch.full((3,), float("nan"))
    assert bits(average([clean, broken, clean * 3], [0.5, 0.0, 0.5])) == bits(torch.full((3,), 2.0))


@pytest.mark.parametrize("weight", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("second", [-0.0, 0.0, -1.5, 2.0, -1e-40])
def test_a_zero_is_negative_where_both_are_whether_the_look_ahead_finds_one_or_not(weight, second):
    """Of every bfloat16 and of those without -0.0, for which the repair of signs is left out."""
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    finite = every[every.isfinite()]
    for first in (finite, finite[finite.view(torch.int16) != torch.iinfo(torch.int16).min]):
        other = torch.full_like(first, second)
        merged = interpolate(first, other, weight)
        expected = torch.lerp(first, other, weight)
        expected.view(torch.int16).bitwise_or_(first.view(torch.int16) & other.view(torch.int16) & torch.iinfo(torch.int16).min)
        assert bits(merged) == bits(expected)


def test_inputs_are_not_changed():
    tensors = [random(100, torch.float32, seed) for seed in range(3)]
    before = [tensor.clone() for tensor in tensors]
    average(tensors, [0.2, 0.3, 0.5])
    average(tensors[:2], [0.6, 0.4])
    assert all(bits(tensor) == bits(copy) for tensor, copy in zip(tensors, before, strict=True))


def test_order_of_sources_moves_a_result_by_rounding_only():
    tensors, weights = [random(1000, torch.float32, seed) for seed in range(4)], [0.1, 0.2, 0.3, 0.4]
    forward, backward = average(tensors, weights), average(tensors[::-1], weights[::-1])
    largest = torch.stack(tensors).abs().amax(0)
    assert ((forward - backward).abs() <= 32 * torch.finfo(torch.float32).eps * largest).all()  # 2 * 4 terms * 4, as in the parity test


def test_partial_average_scales_the_weights_of_the_holders():
    a, c = torch.ones(4), torch.full((4,), 5.0)
    merged = WeightedAverage((0.2, 0.5, 0.3)).merge(Inputs("w", 0, (a, c), (0, 2)))
    assert torch.allclose(merged, torch.full((4,), (0.2 * 1 + 0.3 * 5) / 0.5))
    with pytest.raises(ConfigError, match="tensor 'w' is held only by sources of weight 0"):
        WeightedAverage((0.0, 1.0, 0.0)).merge(Inputs("w", 0, (a, c), (0, 2)))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.5, 0.2, 0.3), r"3 weights for 2 checkpoints \(a, b\); give one weight per checkpoint"),
        ((0.6, 0.5), r"weights sum to 1\.1: they must sum to 1 \(within 1e-06\); the nearest that do: 0\.545455, 0\.454545"),
        ((0.0, 0.0), r"weights sum to 0: .* equal weights"),
        ((1.5, -0.5), r"the weight of 'b' is -0\.5; weights must be finite and not negative"),
        ((float("nan"), 1.0), r"the weight of 'a' is nan"),
        ((float("inf"), 0.0), r"the weight of 'a' is inf"),
    ],
)
def test_weights_that_are_no_average_are_refused(weights, message):
    """Seed defect 6 among them: (1.5, -0.5) sums to 1 and was taken."""
    with pytest.raises(ConfigError, match=message):
        WeightedAverage(weights).check(["a", "b"])


def test_weights_in_decimal_fractions_are_taken():
    WeightedAverage((0.1,) * 10).check([str(index) for index in range(10)])
    WeightedAverage((0.333333, 0.333333, 0.333334)).check(["a", "b", "c"])
    WeightedAverage().check(["a", "b"])


def test_an_average_of_one_is_refused():
    with pytest.raises(ConfigError, match="at least 2 checkpoints, got 1"):
        WeightedAverage().check(["a"])


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), float("inf")])
def test_alpha_outside_zero_to_one_is_refused(alpha):
    with pytest.raises(ConfigError, match="it is the weight of the previous stage's model and must lie between 0 and 1"):
        WiseFT(alpha).check(["previous", "tuned"])


@pytest.mark.parametrize("names", [["tuned", "previous"], ["previous"], ["previous", "tuned", "third"], []])
def test_wise_ft_takes_previous_and_tuned_only(names):
    with pytest.raises(ConfigError, match=r"exactly two sources named previous, tuned \(in that order\), got"):
        WiseFT().check(names)


def test_table_names_its_methods_and_the_nearest_to_a_wrong_name():
    assert merger_class("wise_ft") is WiseFT
    assert all(method_name(example.merger) == example.method for example in EXAMPLES)
    with pytest.raises(ConfigError, match="unknown merge method 'wise-tf'; did you mean 'wise_ft'"):
        merger_class("wise-tf")
