"""SLERP, NuSLERP, spherical average, Karcher mean, model stock, moving average: each against its formula on whole vectors in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import bits

import mergers.engine.layout
from foundation.errors import ConfigError, InputError
from mergers import Inputs, WeightedAverage
from mergers.engine.memory import merge_tensors
from mergers.methods.ema import Ema, ema_weights
from mergers.methods.gram import PARALLEL, gram_of, spherical_mean
from mergers.methods.karcher import Karcher
from mergers.methods.model_stock import ModelStock
from mergers.methods.slerp import NuSlerp, Slerp, SphericalAverage

HALF = [torch.bfloat16, torch.float16]
FLOATS = [*HALF, torch.float32, torch.float64]
SHAPES = [(), (1,), (5,), (3, 4), (2, 3, 5), (40, 7)]

dtypes, shapes, seeds = st.sampled_from(FLOATS), st.sampled_from(SHAPES), st.integers(0, 1 << 30)


def draw(count, shape, dtype, seed, spread=1.0):
    """Tensors around a common one, `spread` times as far from it as it is from zero, of different norms."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(shape, generator=generator)
    return [((centre + spread * torch.randn(shape, generator=generator)) * (1 + index / 2)).to(dtype) for index in range(count)]


def merged(merger, tensors, base=None):
    """One tensor merged through every step that files take."""
    sources = {"abcdefgh"[index]: {"w": tensor} for index, tensor in enumerate(tensors)}
    return merge_tensors(merger, sources, None if base is None else {"w": base})["w"]


def assert_close(result, expected, tensors, factor=8.0):
    """Within what N products and sums in the compute dtype and one rounding to the file's dtype may be off; `factor` for coefficients."""
    dtype = result.dtype
    largest = max(float(tensor.double().abs().max()) for tensor in tensors)
    allowed = factor * len(tensors) * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps * largest
    if dtype in HALF:
        allowed = allowed + torch.finfo(dtype).eps / 2 * expected.abs() + torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    assert ((result.double() - expected).abs() <= allowed).all()


def naive_slerp(first, second, fraction):
    """Shoemake's formula on float64 tensors."""
    cosine = (first * second).sum() / (first.norm() * second.norm())
    if not abs(cosine) <= PARALLEL:  # NaN too: a tensor of zeros
        return (1 - fraction) * first + fraction * second
    angle = torch.acos(cosine)
    return torch.sin((1 - fraction) * angle) / torch.sin(angle) * first + torch.sin(fraction * angle) / torch.sin(angle) * second


def log_map(point, unit):
    cosine = (point * unit).sum()
    across = unit - cosine * point
    length = across.norm()
    return across if length < 1e-12 else torch.atan2(length, cosine) / length * across


def exp_map(point, tangent):
    length = tangent.norm()
    return point if length < 1e-15 else torch.cos(length) * point + torch.sin(length) / length * tangent


@settings(max_examples=150, deadline=None)
@given(shape=shapes, dtype=dtypes, seed=seeds, weight=st.floats(0, 1), spread=st.sampled_from([0.001, 0.3, 3.0]))
def test_slerp_is_shoemakes_formula(shape, dtype, seed, weight, spread):
    tensors = draw(2, shape, dtype, seed, spread)
    expected = naive_slerp(tensors[0].double(), tensors[1].double(), weight)
    # near opposite vectors sin(angle) goes down to 0.03, so coefficients and their errors go up to 30
    assert_close(merged(Slerp(weight), tensors), expected, tensors, factor=300)


@settings(max_examples=150, deadline=None)
@given(shape=shapes, dtype=dtypes, seed=seeds, weights=st.tuples(st.floats(0.01, 3), st.floats(0, 3)), with_base=st.booleans())
def test_nuslerp_is_slerp_of_tensors_or_deltas(shape, dtype, seed, weights, with_base):
    first, second, base = draw(3, shape, dtype, seed)
    fraction = weights[1] / sum(weights)
    origin = base.double() if with_base else torch.zeros((), dtype=torch.float64)
    expected = origin + naive_slerp(first.double() - origin, second.double() - origin, fraction)
    result = merged(NuSlerp(weights), [first, second], base if with_base else None)
    assert_close(result, expected, [first, second, base], factor=600)  # as above, with deltas of up to twice the size


@settings(max_examples=100, deadline=None)
@given(count=st.integers(2, 4), shape=shapes, dtype=dtypes, seed=seeds, data=st.data())
def test_spherical_average_is_one_log_and_one_exp_map(count, shape, dtype, seed, data):
    raw = data.draw(st.lists(st.floats(0.1, 1), min_size=count, max_size=count))
    weights = tuple(weight / sum(raw) for weight in raw)
    tensors = draw(count, shape, dtype, seed, 0.5)
    units = [tensor.double() / tensor.double().norm() for tensor in tensors]
    mean = sum(weight * unit for weight, unit in zip(weights, units, strict=True))
    start = mean / mean.norm()
    if mean.norm() < 0.02 or any((start * unit).sum() < -0.99 for unit in units):
        return  # opposite directions have their own test
    moved = exp_map(start, sum(weight * log_map(start, unit) for weight, unit in zip(weights, units, strict=True)))
    expected = moved * sum(weight * tensor.double().norm() for weight, tensor in zip(weights, tensors, strict=True))
    assert_close(merged(SphericalAverage(weights), tensors), expected, tensors, factor=100)


@settings(max_examples=100, deadline=None)
@given(count=st.integers(2, 4), shape=st.sampled_from([(2,), (5,), (3, 4), (40, 7)]), seed=seeds, spread=st.sampled_from([0.001, 0.1, 0.4]))
def test_karcher_mean_is_where_the_log_maps_cancel(count, shape, seed, spread):
    weights = tuple(2 * (index + 1) / (count * (count + 1)) for index in range(count))
    tensors = draw(count, shape, torch.float64, seed, spread)
    units = [tensor / tensor.norm() for tensor in tensors]
    if min((first * second).sum() for first in units for second in units) < 0:
        return  # the mean is unique only within 90 degrees
    mean = merged(Karcher(weights), tensors)
    norm = sum(weight * tensor.norm() for weight, tensor in zip(weights, tensors, strict=True))
    assert float(mean.norm()) == pytest.approx(float(norm), rel=1e-12)
    maps = [log_map(mean / norm, unit) for unit in units]
    nearest = min(float(tangent.norm()) for tangent in maps)
    # a cosine near 1, off by a few 1e-16, holds its angle to that divided by the angle
    assert sum(weight * tangent for weight, tangent in zip(weights, maps, strict=True)).norm() < 1e-12 + 2e-15 / max(nearest, 1e-8)


@settings(max_examples=100, deadline=None)
@given(count=st.integers(2, 4), shape=shapes, dtype=dtypes, seed=seeds, spread=st.sampled_from([0.2, 1.0]))
def test_model_stock_is_the_papers_ratio(count, shape, dtype, seed, spread):
    *tensors, base = draw(count + 1, shape, dtype, seed, spread)
    flat = [(tensor.double() - base.double()).reshape(-1) for tensor in tensors]
    pairs = [(flat[i] @ flat[j] / (flat[i].norm() * flat[j].norm())).nan_to_num().item() for i in range(count) for j in range(i)]
    cosine = max(0.0, sum(pairs) / len(pairs))
    ratio = count * cosine / (1 + (count - 1) * cosine)
    expected = ratio * sum(tensor.double() for tensor in tensors) / count + (1 - ratio) * base.double()
    assert_close(merged(ModelStock(), tensors, base), expected, [*tensors, base])


@settings(max_examples=60, deadline=None)
@given(count=st.integers(2, 6), shape=shapes, dtype=dtypes, seed=seeds, decay=st.floats(0, 1))
def test_ema_is_the_recursion(count, shape, dtype, seed, decay):
    tensors = draw(count, shape, dtype, seed)
    expected = tensors[0].double()
    for tensor in tensors[1:]:
        expected = decay * expected + (1 - decay) * tensor.double()
    assert_close(merged(Ema(decay), tensors), expected, tensors)
    assert sum(ema_weights(decay, count)) == pytest.approx(1, abs=1e-15 * count)


def test_ema_ends():
    tensors = draw(3, (5,), torch.bfloat16, 1)
    assert bits(merged(Ema(0.0), tensors)) == bits(tensors[2])
    assert bits(merged(Ema(1.0), tensors)) == bits(tensors[0])
    assert Ema(0.9).roles(["a", "b", "c"]) == ("weight 0.81", "weight 0.09", "weight 0.1")
    assert Ema().files_from(["a", "b", "c"]) == "c"


MEANS = [Slerp(0.3), NuSlerp((3.0, 1.0)), SphericalAverage((0.3, 0.7)), Karcher((0.3, 0.7)), Karcher(), ModelStock(), Ema()]


@pytest.mark.parametrize("merger", MEANS, ids=repr)
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_tensor_merged_with_itself_keeps_its_bytes(merger, dtype):
    for shape in SHAPES:
        tensor = draw(1, shape, dtype, 7)[0]
        tensor.view(-1)[::3] = -0.0
        for base in (None, draw(1, shape, dtype, 8)[0]):
            if base is None and merger.base.value == "required":
                continue
            known = gram_of([tensor, tensor], base)
            inputs = Inputs("w", 0, (tensor, tensor.clone()), (0, 1), base, ("a", "b"), tensor.numel(), (), known)
            assert bits(merger.merge(inputs).to(dtype)) == bits(tensor)


@pytest.mark.parametrize("dtype", FLOATS)
def test_slerp_ends_are_the_sources(dtype):
    first, second, base = draw(3, (33, 7), dtype, 5)
    for merger, origin in ((Slerp(0.0), None), (NuSlerp((1.0, 0.0)), None), (NuSlerp((1.0, 0.0)), base)):
        assert bits(merged(merger, [first, second], origin)) == bits(first)
    for merger, origin in ((Slerp(1.0), None), (NuSlerp((0.0, 2.0)), None), (NuSlerp((0.0, 2.0)), base)):
        assert bits(merged(merger, [first, second], origin)) == bits(second)


def test_slerp_is_symmetric_and_so_are_the_means():
    first, second = draw(2, (33, 7), torch.float64, 5)
    torch.testing.assert_close(merged(Slerp(0.3), [first, second]), merged(Slerp(0.7), [second, first]), rtol=1e-13, atol=1e-13)
    for method in (SphericalAverage, Karcher):
        forward, backward = merged(method((0.3, 0.7)), [first, second]), merged(method((0.7, 0.3)), [second, first])
        torch.testing.assert_close(forward, backward, rtol=1e-12, atol=1e-12)


def test_of_two_sources_all_means_lie_on_one_arc():
    first, second = draw(2, (33, 7), torch.float64, 5)
    second = second / second.norm() * first.norm()
    on_arc = merged(Slerp(0.7), [first, second])
    assert float(on_arc.norm()) == pytest.approx(float(first.norm()), rel=1e-13)
    for merger in (SphericalAverage((0.3, 0.7)), Karcher((0.3, 0.7)), NuSlerp((3.0, 7.0))):
        torch.testing.assert_close(merged(merger, [first, second]), on_arc, rtol=1e-12, atol=1e-12)


def test_karcher_goes_on_where_the_spherical_average_stops():
    tensors = draw(4, (6,), torch.float64, 3, spread=0.9)
    gram = gram_of(tensors)
    units = [tensor / tensor.norm() for tensor in tensors]

    def remaining(steps):
        coefficients, _ = spherical_mean(gram, (0.25,) * 4, steps)
        point = sum(c * tensor for c, tensor in zip(coefficients, tensors, strict=True))
        return float(sum(0.25 * log_map(point / point.norm(), unit) for unit in units).norm())

    assert remaining(0) > 5 * remaining(1) > 25 * remaining(4) > 0  # each step comes closer: the control for the next line
    assert remaining(200) < 1e-14


def test_more_sources_than_dimensions_still_converge():
    """Their Gram matrix is singular: lengths taken from coefficients alone would stall at 1e-8."""
    angles = torch.tensor([0.1, 0.2, 0.3, 0.8, 1.1], dtype=torch.float64)
    tensors = [torch.stack((torch.cos(angle), torch.sin(angle))) for angle in angles]
    mean = merged(Karcher(), tensors)
    assert math.atan2(mean[1], mean[0]) == pytest.approx(float(angles.mean()), abs=1e-12)
    assert bits(merged(Karcher(), [tensors[0]] * 4)) == bits(tensors[0])


@pytest.mark.parametrize("method", [SphericalAverage, Karcher])
def test_what_has_no_mean_direction_is_averaged_straight(method):
    tensor = draw(1, (6,), torch.float64, 3)[0]
    zeros = torch.zeros_like(tensor)
    assert torch.equal(merged(method(), [tensor, -tensor]), zeros)
    torch.testing.assert_close(merged(method((0.8, 0.2)), [tensor, -tensor]), 0.6 * tensor)
    torch.testing.assert_close(merged(method((0.8, 0.2)), [tensor, zeros]), 0.8 * tensor)  # zeros count in the norm only
    assert torch.equal(merged(method(), [zeros, -zeros]), zeros)
    corners = [torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64) for angle in (0, 2 * math.pi / 3, 4 * math.pi / 3)]
    torch.testing.assert_close(merged(method(), corners), torch.zeros(2, dtype=torch.float64))
    assert bits(merged(method((1.0, 0.0)), [tensor, -tensor])) == bits(tensor)


def test_opposite_and_zero_tensors_of_slerp_are_averaged_straight():
    tensor = draw(1, (6,), torch.float64, 3)[0]
    torch.testing.assert_close(merged(Slerp(0.3), [tensor, -tensor]), 0.4 * tensor)
    torch.testing.assert_close(merged(Slerp(0.3), [tensor, 0 * tensor]), 0.7 * tensor)
    torch.testing.assert_close(merged(Slerp(0.5), [torch.tensor(2.0), torch.tensor(-1.0)]), torch.tensor(0.5))


def test_where_the_arc_gives_way_to_its_chord():
    """At half of the arc a chord's coefficients sum to 1, the arc's to 1 / cos(theta / 2). The threshold on the cosine is 0.9995."""
    east = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for cosine, factor in ((0.9994, ((1 + 0.9994) / 2) ** -0.5), (0.9996, 1.0), (-0.9994, ((1 - 0.9994) / 2) ** -0.5), (-0.9996, 1.0)):
        other = torch.tensor([cosine, math.sqrt(1 - cosine**2)], dtype=torch.float64)
        torch.testing.assert_close(merged(Slerp(), [east, other]), factor * (east + other) / 2, rtol=1e-9, atol=1e-9)
        karcher = merged(Karcher(), [east, other])  # its mean exists up to opposite sources: only there it gives way
        assert float(karcher.norm()) == pytest.approx(float((east + other).norm() / 2) if cosine < -0.9995 else 1.0)


def test_karcher_says_when_it_has_not_arrived():
    tensors = draw(4, (6,), torch.float64, 3, spread=0.9)
    with pytest.raises(
        InputError, match=r"the Karcher mean of tensor 'w' still moves by .* radians after 3 iterations .* give more iterat"
    ):
        merged(Karcher(iterations=3), tensors)


def test_model_stock_between_base_and_mean():
    base = torch.zeros(4, dtype=torch.float64)
    east, north = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64), torch.tensor([0, 1.0, 0, 0], dtype=torch.float64)
    assert torch.equal(merged(ModelStock(), [east, north], base), base)  # at right angles nothing is shared
    assert torch.equal(merged(ModelStock(), [east, east - 3 * east], base), base)  # against each other: no further than the base
    assert torch.equal(merged(ModelStock(), [east, 3 * east], base), 2 * east)  # one direction: the mean
    torch.testing.assert_close(merged(ModelStock(), [east, east + north], base), (2 * 0.5**0.5 / (1 + 0.5**0.5)) * (east + north / 2))
    assert torch.equal(merged(ModelStock(), [east, base.clone()], base), base)  # an unchanged source has no direction


@pytest.mark.parametrize("merger", [Slerp(0.3), NuSlerp((3.0, 1.0)), SphericalAverage(), Karcher(), ModelStock()], ids=repr)
def test_cutting_into_blocks_changes_no_more_than_rounding(monkeypatch, merger):
    first, second, base = draw(3, (50, 9), torch.float64, 11)
    origin = base if merger.base.value != "no" else None
    whole = merged(merger, [first, second], origin)
    for block in (7, 64, 449):
        monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", block)
        torch.testing.assert_close(merged(merger, [first, second], origin), whole, rtol=1e-13, atol=1e-13)
    monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", 7)
    halves = [tensor.bfloat16() for tensor in (first, second, base)]
    cut = merged(merger, halves[:2], None if origin is None else halves[2])
    monkeypatch.undo()
    assert bits(cut) == bits(merged(merger, halves[:2], None if origin is None else halves[2]))


@pytest.mark.parametrize("dtype", FLOATS)
def test_gram_is_float64_whatever_the_dtype(dtype):
    tensors = [tensor * 100 for tensor in draw(3, (1 << 14,), dtype, 4)]
    base = tensors[0] + (draw(1, (1 << 14,), dtype, 5)[0] / 64).to(dtype)  # close by: float32 differences would lose digits
    for origin in (None, base):
        rows = np.array([(tensor.double() - (0 if origin is None else origin.double())).tolist() for tensor in tensors])
        exact = [[math.fsum(first * second) for second in rows] for first in rows]
        size = [[math.fsum(abs(first * second)) for second in rows] for first in rows]
        gram = gram_of(tensors, origin)
        assert gram.dtype == np.float64
        assert (abs(gram - exact) <= 1e-12 * np.array(size)).all()
        assert (gram == gram.T).all()


def test_inputs_are_left_as_they_are():
    for dtype in FLOATS:
        tensors = draw(3, (50,), dtype, 2)
        before = [bits(tensor) for tensor in tensors]
        for merger in MEANS:
            merged(merger, tensors[:2], tensors[2] if merger.base.value != "no" else None)
        assert [bits(tensor) for tensor in tensors] == before


@pytest.mark.parametrize("merger", [Slerp(0.3), NuSlerp(), SphericalAverage((0.2, 0.8)), Karcher(), ModelStock(), Ema()], ids=repr)
def test_a_tensor_of_one_source_is_taken_from_it(merger):
    first, second, base = draw(3, (5,), torch.float32, 2)
    result = merge_tensors(
        merger, {"a": {"w": first}, "b": {"w": second, "v": second}}, {"w": base, "v": base} if merger.base.value != "no" else None
    )
    assert bits(result["v"]) == bits(second)


def test_a_partial_mean_scales_the_weights_of_the_holders():
    a, b, c = draw(3, (5,), torch.float64, 2)
    for method in (SphericalAverage, Karcher):
        result = merge_tensors(method((0.2, 0.5, 0.3)), {"a": {"w": a, "v": a}, "b": {"w": b}, "c": {"w": c, "v": c}})["v"]
        torch.testing.assert_close(result, merged(method((0.4, 0.6)), [a, c]))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("merger", [Slerp(), NuSlerp(), SphericalAverage(), Karcher(), ModelStock()], ids=repr)
def test_values_without_a_norm_are_refused(merger, value):
    first, second, base = draw(3, (5,), torch.float32, 2)
    second[3] = value
    with pytest.raises(InputError, match="tensor 'w' has no norms and angles: a value in a, b is NaN, infinite or too large"):
        merged(merger, [first, second], base if merger.base.value != "no" else None)


@pytest.mark.parametrize(
    ("merger", "names", "message"),
    [
        (Slerp(), "abc", r"slerp merges exactly two sources, got 3 \(a, b, c\); for more use spherical_average or karcher"),
        (Slerp(1.2), "ab", r"the weight of slerp is 1\.2; it is that of the second source \('b'\) and must lie between 0 and 1"),
        (Slerp(math.nan), "ab", "the weight of slerp is nan"),
        (NuSlerp(), "a", r"nuslerp merges exactly two sources, got 1 \(a\)"),
        (NuSlerp((1.0,)), "ab", r"the weights of nuslerp are 1; give one per source"),
        (NuSlerp((0.0, 0.0)), "ab", r"the weights of nuslerp are 0, 0; .* not both 0"),
        (NuSlerp((1.0, -1.0)), "ab", r"the weights of nuslerp are 1, -1; .* not negative"),
        (SphericalAverage(), "a", "a spherical average needs at least 2 checkpoints, got 1"),
        (SphericalAverage((0.5, 0.6)), "ab", r"weights sum to 1\.1"),
        (Karcher(), "a", "a Karcher mean needs at least 2 checkpoints, got 1"),
        (Karcher(iterations=0), "ab", "iterations is 0; a Karcher mean needs at least 1"),
        (Karcher(tolerance=0.0), "ab", r"tolerance is 0\.0; it is an angle in radians"),
        (ModelStock(), "a", "model stock needs at least 2 checkpoints besides the base, got 1"),
        (Ema(), "a", "a moving average needs at least 2 checkpoints, oldest first, got 1"),
        (Ema(1.5), "ab", r"decay is 1\.5; it is the weight of the past"),
    ],
)
def test_what_does_not_fit_is_refused(merger, names, message):
    with pytest.raises(ConfigError, match=message):
        merger.check(list(names))


def test_equal_weights_of_an_average_and_a_running_mean():
    """The running mean e_k = e_{k-1} + (x_k - e_{k-1}) / (k + 1) needs no method of its own."""
    tensors = draw(4, (5,), torch.float64, 2)
    running = tensors[0]
    for index, tensor in enumerate(tensors[1:], start=1):
        running = running + (tensor - running) / (index + 1)
    torch.testing.assert_close(merged(WeightedAverage(), tensors), running)
