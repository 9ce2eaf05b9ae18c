"""RegMean against its formula and its purpose: the gradient of what it minimises is zero at its result."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import bits

from foundation.errors import ConfigError, InputError
from mergers import WeightedAverage
from mergers.engine.memory import merge_tensors
from mergers.methods.regmean import RegMean

HALF = [torch.bfloat16, torch.float16]
FLOATS = [*HALF, torch.float32, torch.float64]


def draw(count, rows, columns, dtype, seed, tokens=50):
    """Weights [rows, columns] and inputs [tokens, columns] of unlike means and scales, one pair per source."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(rows, columns, generator=generator).to(dtype) for _ in range(count)]
    scales = [torch.rand(columns, generator=generator, dtype=torch.float64) + 0.2 for _ in range(count)]
    return weights, [(torch.randn(tokens, columns, generator=generator, dtype=torch.float64) + 0.5) * scale for scale in scales]


def gram(inputs):
    return inputs.mT @ inputs / len(inputs)


def merged(merger, tensors, grams):
    names = "abcdefgh"[: len(tensors)]
    return merge_tensors(
        merger,
        {name: {"w": tensor} for name, tensor in zip(names, tensors, strict=True)},
        statistics={name: {"w": value} for name, value in zip(names, grams, strict=True) if value is not None},
    )["w"]


def naive(tensors, grams, weights, off_diagonal):
    """(sum_i c_i W_i G~_i) (sum_i c_i G~_i)^-1, with the inverse, in float64."""
    scaled = [off_diagonal * value + (1 - off_diagonal) * torch.diag(value.diagonal()) for value in grams]
    top = sum(weight * tensor.double() @ value for weight, tensor, value in zip(weights, tensors, scaled, strict=True))
    return top @ torch.linalg.inv(sum(weight * value for weight, value in zip(weights, scaled, strict=True)))


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(2, 4),
    rows=st.integers(1, 6),
    columns=st.integers(1, 9),
    dtype=st.sampled_from(FLOATS),
    seed=st.integers(0, 1 << 30),
    off_diagonal=st.sampled_from([0.0, 0.1, 0.9, 1.0]),
    data=st.data(),
)
def test_regmean_is_the_formula(count, rows, columns, dtype, seed, off_diagonal, data):
    raw = data.draw(st.lists(st.sampled_from([0.0, 0.2, 1.0]), min_size=count, max_size=count).filter(lambda raw: sum(raw) > 0))
    weights = tuple(weight / sum(raw) for weight in raw)
    tensors, inputs = draw(count, rows, columns, dtype, seed)
    expected = naive(tensors, [gram(value) for value in inputs], weights, off_diagonal)
    result = merged(RegMean(weights, off_diagonal, ridge=0.0), tensors, [gram(value) for value in inputs])
    # 50 tokens and at most 9 columns: condition numbers stay below 1e4, so float64 keeps 1e-11; then one rounding to the file's dtype
    torch.testing.assert_close(result.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-10 + torch.finfo(dtype).tiny)


def test_gradient_is_zero_at_the_result():
    tensors, inputs = draw(3, 6, 9, torch.float64, 3)
    weights = (0.2, 0.3, 0.5)

    def objective(matrix):
        parts = zip(weights, tensors, inputs, strict=True)
        return sum(weight * (value @ (tensor - matrix).mT).square().sum() / len(value) for weight, tensor, value in parts)

    grams = [gram(value) for value in inputs]
    at_result, at_mean = (
        torch.func.grad(objective)(merged(merger, tensors, grams)).norm()
        for merger in (RegMean(weights, off_diagonal=1.0, ridge=0.0), WeightedAverage(weights))
    )
    assert at_result < 1e-12 < 1e-1 < at_mean  # the mean is the control
    ridged = merged(RegMean(weights, off_diagonal=1.0), tensors, grams)
    assert torch.func.grad(objective)(ridged).norm() < 1e-4  # the default ridge, 1e-6 of the diagonal, hardly moves it


def test_identities():
    tensors, inputs = draw(3, 6, 9, torch.float64, 3)
    grams = [gram(value) for value in inputs]
    weights = (0.2, 0.3, 0.5)
    mean = merged(WeightedAverage(weights), tensors, grams)
    torch.testing.assert_close(merged(RegMean(weights), tensors, [grams[0]] * 3), mean, msg="equal Grams give the mean")
    result = merged(RegMean(weights), tensors, grams)
    torch.testing.assert_close(merged(RegMean(weights), tensors, [1e-9 * value for value in grams]), result, rtol=1e-11, atol=1e-11)
    assert bits(merged(RegMean((0.0, 1.0, 0.0)), tensors, grams)) == bits(tensors[1])
    columns = sum(weight * value.diagonal() for weight, value in zip(weights, grams, strict=True))
    per_column = sum(w * tensor * value.diagonal() for w, tensor, value in zip(weights, tensors, grams, strict=True)) / columns
    torch.testing.assert_close(merged(RegMean(weights, off_diagonal=0.0, ridge=0.0), tensors, grams), per_column)
    order = merged(RegMean((0.5, 0.3, 0.2)), tensors[::-1], grams[::-1])
    torch.testing.assert_close(order, result, rtol=1e-11, atol=1e-11, msg="order of sources")


@pytest.mark.parametrize("dtype", FLOATS)
def test_equal_weights_come_back_and_inputs_stay(dtype):
    tensors, inputs = draw(3, 6, 9, dtype, 3)
    grams = [gram(value) for value in inputs]
    before = [bits(value) for value in (*tensors, *grams)]
    merged(RegMean(), tensors, grams)
    assert [bits(value) for value in (*tensors, *grams)] == before
    rows = [tensor.clone() for tensor in tensors]
    for tensor in rows:
        tensor[2] = tensors[0][2]
    assert bits(merged(RegMean(), rows, grams)[2]) == bits(tensors[0][2]), "a row that is equal in all sources"


def test_inputs_that_no_source_has_seen_get_the_mean():
    """Few tokens and a dead input: without a ridge the matrix is singular."""
    tensors, inputs = draw(2, 6, 9, torch.float64, 3, tokens=3)
    for value in inputs:
        value[:, 4] = 0
    grams = [gram(value) for value in inputs]
    result = merged(RegMean((0.25, 0.75), off_diagonal=1.0), tensors, grams)
    torch.testing.assert_close(result[:, 4], 0.25 * tensors[0][:, 4] + 0.75 * tensors[1][:, 4])
    for tensor, value in zip(tensors, inputs, strict=True):  # 6 tokens, 8 live inputs: both sources can be matched on their own
        torch.testing.assert_close(value @ result.mT, value @ tensor.mT, rtol=0, atol=1e-3)
    with pytest.raises(
        InputError, match=r"the grams of tensor 'w' add up to a matrix that is not positive definite \(row \d+\): .* raise r"
    ):
        merged(RegMean(off_diagonal=1.0, ridge=0.0), tensors, grams)
    zeros = [torch.zeros(9, 9)] * 2
    assert bits(merged(RegMean((0.25, 0.75)), tensors, zeros)) == bits(merged(WeightedAverage((0.25, 0.75)), tensors, zeros))


def test_float32_grams_and_convolutions():
    tensors, inputs = draw(2, 6, 12, torch.float32, 3)
    grams = [gram(value).float() for value in inputs]
    flat = merged(RegMean(), tensors, grams)
    torch.testing.assert_close(flat, merged(RegMean(), tensors, [gram(value) for value in inputs]), rtol=1e-4, atol=1e-4)
    assert bits(merged(RegMean(), [tensor.view(6, 3, 2, 2) for tensor in tensors], grams)) == bits(flat)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (7, 3)])
def test_tensors_without_gram_get_the_weighted_mean(shape):
    generator = torch.Generator().manual_seed(3)
    tensors = [torch.randn(shape, generator=generator).bfloat16() for _ in range(3)]
    weights = (0.2, 0.3, 0.5)
    assert bits(merged(RegMean(weights), tensors, [None] * 3)) == bits(merged(WeightedAverage(weights), tensors, [None] * 3))


def test_where_some_lack_it_the_user_says():
    tensors, inputs = draw(3, 6, 9, torch.bfloat16, 3)
    grams = [None, *(gram(value) for value in inputs[1:])]
    with pytest.raises(InputError, match=r"tensor 'w': 1 of 3 sources have no gram for it \('a'\) while others do; .* set missing: mean"):
        merged(RegMean(), tensors, grams)
    assert bits(merged(RegMean(missing="mean"), tensors, grams)) == bits(merged(WeightedAverage(), tensors, grams))


def test_statistics_are_checked_from_their_shapes():
    RegMean().check_statistics("w", (3, 4), [(4, 4), (4, 4)])
    RegMean().check_statistics("w", (3, 2, 2), [(4, 4), (4, 4)])
    RegMean().check_statistics("w", (3,), [None, None])
    RegMean(missing="mean").check_statistics("w", (3, 4), [None, (4, 4)])
    with pytest.raises(InputError, match=r"1 of 2 sources have no gram for it \(source 1\)"):
        RegMean().check_statistics("w", (3, 4), [None, (4, 4)])
    with pytest.raises(InputError, match=r"the gram of 'b' for tensor 'w' has shape \[3, 3\] where the tensor asks for \[4, 4\]"):
        RegMean(missing="mean").check_statistics("w", (3, 4), [None, (3, 3)], ("a", "b"))
    with pytest.raises(InputError, match=r"tensor 'w' of shape \[3\] has a gram, but only weights of two dimensions or more"):
        RegMean().check_statistics("w", (3,), [None, (3, 3)])


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [((1, 1), -1.0, "has -1 on its diagonal"), ((1, 2), math.nan, "holds NaN or infinity"), ((1, 2), 5.0, "is not symmetric")],
)
def test_what_is_no_gram_is_refused(place, value, what):
    tensors, inputs = draw(2, 6, 9, torch.bfloat16, 3)
    grams = [gram(value) for value in inputs]
    grams[1][place] = value
    with pytest.raises(InputError, match=f"the gram of 'b' for tensor 'w' {what}"):
        merged(RegMean(), tensors, grams)


def test_partial_merges_take_each_holders_own_weight():
    tensors, inputs = draw(3, 6, 9, torch.float64, 3)
    grams = [gram(value) for value in inputs]
    sources = {"a": {"v": tensors[0], "w": tensors[0]}, "b": {"w": tensors[1]}, "c": {"v": tensors[2], "w": tensors[2], "u": tensors[2]}}
    statistics = {name: dict.fromkeys("uvw", value) for name, value in zip("abc", grams, strict=True)}
    result = merge_tensors(RegMean((0.1, 0.5, 0.4)), sources, statistics=statistics)
    torch.testing.assert_close(result["v"], merged(RegMean((0.2, 0.8)), [tensors[0], tensors[2]], [grams[0], grams[2]]))
    assert bits(result["u"]) == bits(tensors[2])


@pytest.mark.parametrize(
    ("merger", "names", "message"),
    [
        (RegMean(), "a", "RegMean needs at least 2 checkpoints, got 1"),
        (RegMean((0.5, 0.6)), "ab", r"weights sum to 1\.1"),
        (
            RegMean(off_diagonal=1.1),
            "ab",
            r"off_diagonal is 1\.1; it multiplies the Grams off their diagonals and must lie between 0 and 1",
        ),
        (RegMean(ridge=-1.0), "ab", r"ridge is -1\.0; it is added to the diagonal, relative to its mean, and must lie between 0 and 1"),
        (RegMean(missing="skip"), "ab", "missing is 'skip'; it says what to do with tensors that some sources have no statistic for"),
    ],
)
def test_what_does_not_fit_is_refused(merger, names, message):
    with pytest.raises(ConfigError, match=message):
        merger.check(list(names))
