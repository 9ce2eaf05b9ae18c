"""Task arithmetic against its formula in float64, and the algebra it is named for: forgetting, analogies, any order of sources."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import bits

import mergers.engine.layout
from foundation.errors import ConfigError
from mergers import WeightedAverage
from mergers.engine.memory import merge_tensors
from mergers.methods.task_arithmetic import TaskArithmetic

HALF = [torch.bfloat16, torch.float16]
FLOATS = [*HALF, torch.float32, torch.float64]
SHAPES = [(), (1,), (5,), (3, 4), (40, 7)]


def draw(count, shape, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(count)]


def merged(merger, tensors, base):
    return merge_tensors(merger, {"abcdefgh"[index]: {"w": tensor} for index, tensor in enumerate(tensors)}, {"w": base})["w"]


def rounding(dtype, *tensors, terms=8):
    """What `terms` operations in the compute dtype and one cast to `dtype` may be off, for sums of terms no larger than `tensors`."""
    size = sum(tensor.double().abs() for tensor in tensors)
    allowed = terms * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps * size
    return allowed + (torch.finfo(dtype).eps * size + torch.finfo(dtype).tiny * torch.finfo(dtype).eps if dtype in HALF else 0)


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(1, 4),
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from(FLOATS),
    seed=st.integers(0, 1 << 30),
    scale=st.floats(-2, 2),
    normalize=st.booleans(),
    data=st.data(),
)
def test_task_arithmetic_is_the_formula(count, shape, dtype, seed, scale, normalize, data):
    weights = tuple(data.draw(st.lists(st.floats(-2, 2), min_size=count, max_size=count)))
    if abs(sum(weights)) < 0.1:
        normalize = False
    *tensors, base = draw(count + 1, shape, dtype, seed)
    factors = [scale * weight / (sum(weights) if normalize else 1) for weight in weights]
    moves = [factor * (tensor.double() - base.double()) for factor, tensor in zip(factors, tensors, strict=True)]
    result = merged(TaskArithmetic(weights, scale, normalize), tensors, base)
    assert ((result.double() - (base.double() + sum(moves))).abs() <= rounding(dtype, base, *moves, terms=4 * (count + 2))).all()


def test_half_precision_is_float32_rounded_once():
    first, second, base = draw(3, (1000,), torch.bfloat16, 3)
    b = base.float()
    by_hand = b + 0.4 * (0.7 * (first.float() - b) + 0.8 * (second.float() - b))
    assert bits(merged(TaskArithmetic((0.7, 0.8), 0.4), [first, second], base)) == bits(by_hand.bfloat16())


@pytest.mark.parametrize("dtype", FLOATS)
def test_no_change_is_no_change(dtype):
    first, base = draw(2, (33, 7), dtype, 3)
    base.view(-1)[::5] = -0.0
    first.view(-1)[::3] = base.view(-1)[::3]
    assert bits(merged(TaskArithmetic(), [first], base)) == bits(first), "one source, weight 1"
    assert bits(merged(TaskArithmetic(scale=0.0), [first, first], base)) == bits(base), "scale 0"
    result = merged(TaskArithmetic((0.3, 0.4), 0.5), [first, first], base)
    assert bits(result.view(-1)[::3]) == bits(base.view(-1)[::3]), "where sources equal the base, it keeps its bits, -0.0 too"
    before = bits(first), bits(base)
    merged(TaskArithmetic((0.3, -0.4), 0.5), [first, first.clone()], base)
    assert (bits(first), bits(base)) == before, "inputs are left as they are"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_order_of_sources_moves_a_result_by_rounding_only(dtype):
    *tensors, base = draw(5, (1000,), dtype, 3)
    weights = (0.1, -0.2, 0.3, 0.4)
    forward = merged(TaskArithmetic(weights), tensors, base)
    backward = merged(TaskArithmetic(weights[::-1]), tensors[::-1], base)
    assert ((forward.double() - backward.double()).abs() <= rounding(dtype, base, *tensors, terms=16)).all()


def test_forgetting_mirrors_learning():
    tuned, base = draw(2, (100,), torch.float64, 3)
    learned, forgotten = (merged(TaskArithmetic((weight,), 0.6), [tuned], base) for weight in (1.0, -1.0))
    torch.testing.assert_close((learned + forgotten) / 2, base)
    torch.testing.assert_close(forgotten, base - 0.6 * (tuned - base))


def test_analogy():
    a, b, c, base = draw(4, (100,), torch.float64, 3)
    expected = c + (b - a)
    torch.testing.assert_close(merged(TaskArithmetic((1.0, 1.0, -1.0)), [c, b, a], base), expected)
    torch.testing.assert_close(merged(TaskArithmetic((1.0, -1.0)), [b, a], c), expected)


def test_normalized_at_scale_one_is_the_average():
    *tensors, base = draw(4, (100,), torch.float64, 3)
    torch.testing.assert_close(merged(TaskArithmetic(normalize=True), tensors, base), merged(WeightedAverage(), tensors, base))


def test_partial_merges_take_each_holders_own_weight():
    first, second, third, base = draw(4, (10,), torch.float64, 3)
    sources = {"a": {"w": first, "v": first}, "b": {"w": second}, "c": {"w": third, "v": third}}
    bases = {"w": base, "v": base}
    result = merge_tensors(TaskArithmetic((0.1, 0.2, 0.7)), sources, bases)["v"]
    torch.testing.assert_close(result, base + 0.1 * (first - base) + 0.7 * (third - base))
    result = merge_tensors(TaskArithmetic((0.1, 0.2, 0.7), normalize=True), sources, bases)["v"]
    torch.testing.assert_close(result, base + 0.125 * (first - base) + 0.875 * (third - base))
    with pytest.raises(ConfigError, match="the weights of the sources that hold tensor 'v'"):
        merge_tensors(TaskArithmetic((1.0, 1.0, -1.0), normalize=True), sources, bases)


def test_cutting_into_blocks_changes_no_bit(monkeypatch):
    first, second, base = draw(3, (50, 9), torch.bfloat16, 3)
    whole = merged(TaskArithmetic((0.3, 0.6), 0.7), [first, second], base)
    for block in (7, 64, 449):
        monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", block)
        assert bits(merged(TaskArithmetic((0.3, 0.6), 0.7), [first, second], base)) == bits(whole)


@pytest.mark.parametrize(
    ("merger", "names", "message"),
    [
        (TaskArithmetic(), "", "needs at least 1 checkpoint besides the base, got none"),
        (TaskArithmetic((1.0,)), "ab", r"1 weights for 2 checkpoints \(a, b\); give one weight per checkpoint"),
        (TaskArithmetic((1.0, math.nan)), "ab", "the weight of 'b' is nan; give a finite number"),
        (TaskArithmetic(scale=math.inf), "ab", "scale is inf; it multiplies the sum of the task vectors"),
        (TaskArithmetic((1.0, -1.0), normalize=True), "ab", r"the weights of the sources \(1, -1\) sum to 0 and cannot be normalized"),
    ],
)
def test_what_does_not_fit_is_refused(merger, names, message):
    with pytest.raises(ConfigError, match=message):
        merger.check(list(names))


def test_roles_and_files():
    assert TaskArithmetic((1.0, -0.5), 0.4).roles(["a", "b"]) == ("task vector times 0.4", "task vector times -0.2")
    assert TaskArithmetic(normalize=True).roles(["a", "b"]) == ("task vector times 0.5", "task vector times 0.5")
    assert TaskArithmetic().files_from(["a", "b"]) is None
