"""Fisher averaging against its formula in float64; the floor, what is missing, and what is no Fisher."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import bits

import mergers.engine.layout
from foundation.errors import ConfigError, InputError
from mergers import WeightedAverage
from mergers.engine.memory import merge_tensors
from mergers.methods.fisher import Fisher

HALF = [torch.bfloat16, torch.float16]
FLOATS = [*HALF, torch.float32, torch.float64]
SHAPES = [(), (1,), (5,), (3, 4), (40, 7)]


def draw(count, shape, dtype, seed):
    """Tensors, and Fishers over many magnitudes with zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(shape, generator=generator).to(dtype) for _ in range(count)]
    fishers = [10.0 ** (torch.rand(shape, generator=generator) * 12 - 10) for _ in range(count)]
    return tensors, [torch.where(torch.rand(shape, generator=generator) < 0.2, 0.0, fisher) for fisher in fishers]


def merged(merger, tensors, fishers):
    names = "abcdefgh"[: len(tensors)]
    return merge_tensors(
        merger,
        {name: {"w": tensor} for name, tensor in zip(names, tensors, strict=True)},
        statistics={name: {"w": fisher} for name, fisher in zip(names, fishers, strict=True) if fisher is not None},
    )["w"]


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(2, 4),
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from(FLOATS),
    seed=st.integers(0, 1 << 30),
    floor=st.sampled_from([1e-20, 1e-8, 1e-3]),
    data=st.data(),
)
def test_fisher_is_the_formula(count, shape, dtype, seed, floor, data):
    raw = data.draw(st.lists(st.sampled_from([0.0, 0.2, 1.0, 3.0]), min_size=count, max_size=count).filter(lambda raw: sum(raw) > 0))
    weights = tuple(weight / sum(raw) for weight in raw)
    tensors, fishers = draw(count, shape, dtype, seed)
    pulls = [weight * fisher.double().clamp(min=floor) for weight, fisher in zip(weights, fishers, strict=True)]
    expected = sum(pull * tensor.double() for pull, tensor in zip(pulls, tensors, strict=True)) / sum(pulls)
    result = merged(Fisher(weights, floor), tensors, fishers).double()
    largest = torch.stack([tensor.double().abs() for tensor in tensors]).amax(0)
    compute = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    # shares of at most 1, each off by a few epsilon, times differences of at most twice the largest; float64 sees float32 Fishers and floor
    allowed = 8 * count * compute * largest
    if dtype in HALF:
        allowed = allowed + torch.finfo(dtype).eps / 2 * largest + torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    assert ((result - expected).abs() <= allowed).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_equal_fishers_give_the_mean(dtype):
    tensors, fishers = draw(3, (40, 7), dtype, 3)
    result = merged(Fisher(floor=1e-20), tensors, [fishers[0]] * 3)
    expected = merged(WeightedAverage(), tensors, [None] * 3)
    torch.testing.assert_close(result, expected, rtol=2 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


def test_a_large_fisher_wins_and_the_floor_decides_where_none_is():
    first, second = torch.zeros(4), torch.ones(4)
    result = merged(Fisher((0.25, 0.75)), [first, second], [torch.tensor([1.0, 0, 0, 1.0]), torch.tensor([0, 1.0, 0, 1.0])])
    torch.testing.assert_close(result, torch.tensor([3e-8, 1.0, 0.75, 0.75]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", FLOATS)
def test_equal_elements_keep_their_bits(dtype):
    tensors, fishers = draw(3, (40, 7), dtype, 3)
    tensors[0].view(-1)[::7] = -0.0
    for tensor in tensors[1:]:
        tensor.view(-1)[::2] = tensors[0].view(-1)[::2]
    before = [bits(value) for value in (*tensors, *fishers)]
    assert bits(merged(Fisher(), tensors, fishers).view(-1)[::2]) == bits(tensors[0].view(-1)[::2])
    assert [bits(value) for value in (*tensors, *fishers)] == before, "inputs are left as they are"
    assert bits(merged(Fisher((0.0, 1.0, 0.0)), tensors, fishers)) == bits(tensors[1])


def test_without_any_fisher_the_weighted_mean():
    tensors, _ = draw(3, (40, 7), torch.bfloat16, 3)
    weights = (0.2, 0.3, 0.5)
    assert bits(merged(Fisher(weights), tensors, [None] * 3)) == bits(merged(WeightedAverage(weights), tensors, [None] * 3))


def test_where_some_lack_it_the_user_says():
    tensors, fishers = draw(3, (40, 7), torch.bfloat16, 3)
    fishers[1] = None
    with pytest.raises(InputError, match=r"tensor 'w': 1 of 3 sources have no fisher for it \('b'\) while others do; .* set missing: mean"):
        merged(Fisher(), tensors, fishers)
    assert bits(merged(Fisher(missing="mean"), tensors, fishers)) == bits(merged(WeightedAverage(), tensors, fishers))


def test_statistics_are_checked_from_their_shapes():
    Fisher().check_statistics("w", (3, 4), [(3, 4), (3, 4)])
    Fisher().check_statistics("w", (3, 4), [None, None])
    Fisher(missing="mean").check_statistics("w", (3, 4), [None, (3, 4)])
    with pytest.raises(InputError, match=r"1 of 2 sources have no fisher for it \(source 1\)"):
        Fisher().check_statistics("w", (3, 4), [None, (3, 4)])
    with pytest.raises(InputError, match=r"the fisher of 'b' for tensor 'w' has shape \[4, 3\] where the tensor asks for \[3, 4\]"):
        Fisher(missing="mean").check_statistics("w", (3, 4), [None, (4, 3)], ("a", "b"))


@pytest.mark.parametrize(("value", "shown"), [(-1.0, "-1"), (math.nan, "nan"), (math.inf, "inf")])
def test_what_is_no_fisher_is_refused(value, shown):
    tensors, fishers = draw(2, (40, 7), torch.bfloat16, 3)
    fishers[1].view(-1)[100] = value
    with pytest.raises(InputError, match=f"the fisher of 'b' for tensor 'w' holds {shown} in elements 0 to 279"):
        merged(Fisher(), tensors, fishers)


def test_partial_merges_take_each_holders_own_weight():
    tensors, fishers = draw(3, (5,), torch.float64, 3)
    sources = {"a": {"v": tensors[0], "w": tensors[0]}, "b": {"w": tensors[1]}, "c": {"v": tensors[2], "w": tensors[2], "u": tensors[2]}}
    statistics = {name: dict.fromkeys("uvw", fisher) for name, fisher in zip("abc", fishers, strict=True)}
    result = merge_tensors(Fisher((0.1, 0.5, 0.4)), sources, statistics=statistics)
    torch.testing.assert_close(result["v"], merged(Fisher((0.2, 0.8)), [tensors[0], tensors[2]], [fishers[0], fishers[2]]))
    assert bits(result["u"]) == bits(tensors[2])


def test_cutting_into_blocks_changes_no_bit(monkeypatch):
    tensors, fishers = draw(3, (50, 9), torch.bfloat16, 3)
    whole = merged(Fisher(), tensors, fishers)
    for block in (7, 64, 449):
        monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", block)
        assert bits(merged(Fisher(), tensors, fishers)) == bits(whole)


@pytest.mark.parametrize(
    ("merger", "names", "message"),
    [
        (Fisher(), "a", "Fisher averaging needs at least 2 checkpoints, got 1"),
        (Fisher((0.5, 0.6)), "ab", r"weights sum to 1\.1"),
        (
            Fisher(floor=0.0),
            "ab",
            r"floor is 0\.0; it is the least Fisher an element is taken to have and must lie between 1e-30 and 1e\+30",
        ),
        (
            Fisher(missing="skip"),
            "ab",
            "missing is 'skip'; it says what to do with tensors that some sources have no statistic for: error or",
        ),
    ],
)
def test_what_does_not_fit_is_refused(merger, names, message):
    with pytest.raises(ConfigError, match=message):
        merger.check(list(names))
