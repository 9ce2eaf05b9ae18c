"""TIES, DARE, Breadcrumbs, DELLA and SCE against their papers' formulas, written out naively in float64, element by element.

Most values lie on a coarse grid of binary fractions. There deltas, sums and votes are exact in every dtype, so ties, zeros and draws of the
vote happen all the time and must come out as the formula says; what remains is the rounding of quotients and of the result.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_sparse import ALL, assert_close, grid_models, kept_band, naive_merge, normal_models
from small_models import bits

import mergers.engine.layout
from mergers.engine.layout import row_elements
from mergers.engine.memory import merge_tensors
from mergers.methods.breadcrumbs import Breadcrumbs, BreadcrumbsTies
from mergers.methods.dare import DareLinear, DareTies
from mergers.methods.della import RADIX_COLUMNS, Della, DellaLinear, rank_order
from mergers.methods.draws import LEVELS, draws
from mergers.methods.sce import Sce
from mergers.methods.sparse import at
from mergers.methods.task_arithmetic import TaskArithmetic
from mergers.methods.ties import Ties, TiesPerTensor

SHAPES = [{"w": (7,)}, {"w": ()}, {"v": (5, 3), "w": (2, 3, 4)}, {"w": (33, 7), "x": (1, 1), "y": (9,)}]
WEIGHTS = [None, (1.0, 1.0, 1.0), (0.5, 2.0, 0.25), (3.0, 0.0, 1.0)]

cases = given(
    shapes=st.sampled_from(SHAPES),
    count=st.integers(1, 3),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
    seed=st.integers(0, 1 << 20),
    weights=st.sampled_from(WEIGHTS),
    scale=st.sampled_from([1.0, 0.5, 2.0]),
    density=st.sampled_from([0.2, 0.5, 0.73, 1.0, (0.2, 0.5, 1.0), (1.0, 0.73, 0.2), (1.0, 1.0, 0.5)]),
    normalize=st.booleans(),
)
thorough = settings(max_examples=60, deadline=None)


def drawn_case(shapes, count, dtype, seed, weights, density):
    """Models, their weights, the density for the method, and the density of each source."""
    base, sources = grid_models(count, shapes, dtype, seed)
    density = density[:count] if isinstance(density, tuple) else density
    shares = {source: at(density, position) for position, source in enumerate(sources)}
    return base, sources, None if weights is None else weights[:count], density, shares


@thorough
@cases
def test_ties_trims_the_whole_model(shapes, count, dtype, seed, weights, scale, density, normalize):
    base, sources, weights, density, shares = drawn_case(shapes, count, dtype, seed, weights, density)
    whole = {
        source: [delta for name in shapes for delta in (tensors[name].double() - base[name].double()).view(-1).tolist()]
        for source, tensors in sources.items()
    }
    least = {source: sorted(map(abs, flat), reverse=True)[max(1, int(shares[source] * len(flat))) - 1] for source, flat in whole.items()}
    expected = naive_merge(
        base, sources, lambda source, _, flat: [d if abs(d) >= least[source] else 0.0 for d in flat], weights, scale, True, normalize
    )
    assert_close(merge_tensors(Ties(density, weights, scale, normalize), sources, base), expected, dtype)


@thorough
@cases
def test_ties_per_tensor_trims_each_tensor(shapes, count, dtype, seed, weights, scale, density, normalize):
    base, sources, weights, density, shares = drawn_case(shapes, count, dtype, seed, weights, density)

    def dropped(source, _, flat):
        return kept_band(flat, 1, max(1, int(shares[source] * len(flat))))

    expected = naive_merge(base, sources, dropped, weights, scale, True, normalize)
    assert_close(merge_tensors(TiesPerTensor(density, weights, scale, normalize), sources, base), expected, dtype)


@thorough
@cases
@pytest.mark.parametrize("method", [Breadcrumbs, BreadcrumbsTies])
def test_breadcrumbs_drops_both_ends(method, shapes, count, dtype, seed, weights, scale, density, normalize):
    base, sources, weights, density, shares = drawn_case(shapes, count, dtype, seed, weights, density)
    tops = {source: min(0.2, 1 - share) for source, share in shares.items()}
    outliers = tuple(tops.values()) if isinstance(density, tuple) else tops["a"]

    def dropped(source, _, flat):
        kept = max(1, int(shares[source] * len(flat)))
        top = min(int(tops[source] * len(flat)), len(flat) - kept)
        return kept_band(flat, top + 1, top + kept)

    expected = naive_merge(base, sources, dropped, weights, scale, method.consensus, normalize)
    assert_close(merge_tensors(method(density, outliers, weights, scale, normalize), sources, base), expected, dtype)


@thorough
@cases
@pytest.mark.parametrize("method", [DareLinear, DareTies])
@pytest.mark.parametrize("rescale", [True, False])
def test_dare_drops_at_random_and_rescales(method, rescale, shapes, count, dtype, seed, weights, scale, density, normalize):
    base, sources, weights, density, shares = drawn_case(shapes, count, dtype, seed, weights, density)
    shared = len(set(shares.values())) == 1
    factor = LEVELS / round(shares["a"] * LEVELS) if rescale and shared else 1.0

    def dropped(source, name, flat):
        drawn = draws(seed, source, name, 0, len(flat)).tolist()
        level = round(shares[source] * LEVELS)
        own = LEVELS / level if rescale and not shared else 1.0
        return [delta * own if draw < level else 0.0 for delta, draw in zip(flat, drawn, strict=True)]

    expected = naive_merge(base, sources, dropped, weights, scale * factor, method.consensus, normalize, exact=shared or not rescale)
    made = merge_tensors(method(density, weights, scale, seed, normalize, rescale), sources, base)
    assert_close(made, expected, dtype, largest=1 if shared else 16)  # 3 / 8 / 0.2 times a weight of 3 times a scale of 2


@thorough
@cases
@pytest.mark.parametrize("method", [DellaLinear, Della])
def test_della_keeps_large_changes_more_often(method, shapes, count, dtype, seed, weights, scale, density, normalize):
    base, sources, weights, density, shares = drawn_case(shapes, count, dtype, seed, weights, density)
    spreads = {source: min(0.3, 2 * (1 - share), 1.5 * share) for source, share in shares.items()}
    spread = tuple(spreads.values()) if isinstance(density, tuple) else spreads["a"]

    def dropped(source, name, flat):
        drawn, columns, result = draws(seed, source, name, 0, len(flat)).tolist(), row_elements(shapes[name]), [0.0] * len(flat)
        for start in range(0, len(flat), columns):
            order = sorted(range(start, start + columns), key=lambda place: (abs(flat[place]), place))
            for rank, place in enumerate(order):
                level = round((shares[source] + spreads[source] * ((rank + 0.5) / columns - 0.5)) * LEVELS)
                result[place] = flat[place] * LEVELS / level if drawn[place] < level else 0.0
        return result

    expected = naive_merge(base, sources, dropped, weights, scale, method.consensus, normalize, exact=False)
    assert_close(merge_tensors(method(density, spread, weights, scale, seed, normalize), sources, base), expected, dtype, largest=40)


@pytest.mark.parametrize("columns", [1, 5, RADIX_COLUMNS - 1, RADIX_COLUMNS, RADIX_COLUMNS + 500])
@pytest.mark.parametrize("grid", [True, False])
def test_equal_magnitudes_are_ranked_from_left_to_right(columns, grid):
    """In short rows and in long ones, which are sorted in other ways."""
    generator = torch.Generator().manual_seed(columns)
    values = torch.randint(0, 9, (4, columns), generator=generator) / 8 if grid else torch.rand(4, columns, generator=generator) * 1e-3
    values[2, columns // 2] = math.inf
    values[3, columns // 3 :: 7] = math.nan
    order = rank_order(values)
    assert order.dtype == np.int64
    for row, found in zip(values.tolist(), order.tolist(), strict=True):  # NaN ranks above infinity
        assert found == sorted(range(columns), key=lambda place: (math.isnan(row[place]), 0 if math.isnan(row[place]) else row[place]))


@thorough
@given(
    shapes=st.sampled_from(SHAPES),
    count=st.integers(2, 3),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
    seed=st.integers(0, 1 << 20),
    select=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_sce_selects_weighs_and_erases(shapes, count, dtype, seed, select):
    base, sources = grid_models(count, shapes, dtype, seed, step=count)  # so that the mean of the changes is exact as well
    expected = {}
    for name, anchor in base.items():
        deltas = [(tensors[name].double() - anchor.double()).view(-1).tolist() for tensors in sources.values()]
        columns = list(zip(*deltas, strict=True))
        variances = [sum((count * delta - sum(column)) ** 2 for delta in column) for column in columns]  # times count ** 3
        least = sorted(variances, reverse=True)[max(1, int(select * len(columns))) - 1]
        columns = [column if variance >= least else (0.0,) * count for column, variance in zip(columns, variances, strict=True)]
        squares = [sum(column[i] ** 2 for column in columns) for i in range(count)]
        result = []
        for value, column in zip(anchor.double().view(-1).tolist(), columns, strict=True):
            agreeing = [(weight, delta) for weight, delta in zip(squares, column, strict=True) if delta * sum(column) > 0]
            mean = sum(w * d for w, d in agreeing) / sum(w for w, _ in agreeing) if agreeing else 0.0
            result.append(value + mean)
        expected[name] = torch.tensor(result, dtype=torch.float64).view(anchor.shape)
    assert_close(merge_tensors(Sce(select), sources, base), expected, dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "method", [Ties(1.0), TiesPerTensor(1.0), Ties(1.0, (0.3,)), DareTies(1.0), BreadcrumbsTies(1.0, 0.0), Della(1.0, 0.0)]
)
def test_one_source_kept_whole_comes_back_to_the_bit(method, dtype):
    base, sources = normal_models(1, dtype)
    assert bits(merge_tensors(method, sources, base)["w"]) == bits(sources["a"]["w"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("weights", [None, (0.3, 0.45, 1.7)])
@pytest.mark.parametrize("normalize", [False, True])
def test_linear_methods_that_keep_all_are_task_arithmetic_to_the_bit(dtype, weights, normalize):
    base, sources = normal_models(3, dtype)
    expected = bits(merge_tensors(TaskArithmetic(weights, 0.7, normalize), sources, base)["w"])
    for method in (
        DareLinear(1.0, weights, 0.7, normalize=normalize),
        DellaLinear(1.0, 0.0, weights, 0.7, normalize=normalize),
        Breadcrumbs(1.0, 0.0, weights, 0.7, normalize),
    ):
        assert method.rounds == 0
        assert bits(merge_tensors(method, sources, base)["w"]) == expected


@pytest.mark.parametrize("method", [Ties(0.999999), Breadcrumbs(0.999999, 0.0), DareLinear(0.99999), DellaLinear(0.99999, 0.0)])
def test_keeping_nearly_all_is_nearly_keeping_all(method):
    """The way through thresholds and masks meets the way without them. (Ties with one source is that source.)"""
    base, sources = normal_models(1, torch.float32)
    made = merge_tensors(method, sources, base)["w"]
    differing = (made - sources["a"]["w"]).abs() > 1e-6  # above the rounding of 1 / density and of b + (x - b)
    assert int(differing.sum()) <= 1


every_method = pytest.mark.parametrize("method", ALL, ids=str)
UNDRAWN = [method for method in ALL if not hasattr(method, "seed")]


@every_method
def test_elements_that_no_source_has_changed_keep_their_bits(method):
    base, sources = normal_models(3, torch.float32)
    frozen = torch.arange(3000) % 3 == 0
    base["w"][torch.arange(3000) % 6 == 0] = -0.0
    for tensors in sources.values():
        tensors["w"][frozen] = base["w"][frozen]
    merged = merge_tensors(method, sources, base)["w"]
    assert bits(merged[frozen]) == bits(base["w"][frozen])
    assert not torch.equal(merged, base["w"])


@every_method
def test_nan_in_one_source_is_not_hidden(method):
    base, sources = normal_models(3, torch.float32)
    for place in range(0, 600, 20):
        sources["b"]["w"][place] = torch.nan
    assert merge_tensors(method, sources, base)["w"][0:600:20].isnan().all()


@every_method
def test_inputs_are_not_changed(method):
    base, sources = normal_models(3, torch.float32)
    before = {"base": bits(base["w"]), **{name: bits(tensors["w"]) for name, tensors in sources.items()}}
    merge_tensors(method, sources, base)
    assert {"base": bits(base["w"]), **{name: bits(tensors["w"]) for name, tensors in sources.items()}} == before


@pytest.mark.parametrize("method", UNDRAWN, ids=str)
@pytest.mark.parametrize("block", [1, 7, 100, 4096])
def test_methods_without_draws_do_not_depend_on_cutting(monkeypatch, method, block):
    base, sources = grid_models(3, {"v": (5, 3), "w": (40,)}, torch.float32, seed=5)
    expected = merge_tensors(method, sources, base)
    monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", block)
    made = merge_tensors(method, sources, base)
    assert {name: bits(tensor) for name, tensor in made.items()} == {name: bits(tensor) for name, tensor in expected.items()}


def test_each_block_has_its_own_draws(monkeypatch):
    monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", 10)
    change = torch.arange(1.0, 26.0)
    merged = merge_tensors(DareLinear(0.5, seed=9), {"a": {"w": change}}, {"w": torch.zeros(25)})["w"]
    drawn = [draw for start in (0, 10, 20) for draw in draws(9, "a", "w", start, min(10, 25 - start)).tolist()]
    assert merged.tolist() == [2 * value if draw < LEVELS // 2 else 0.0 for value, draw in zip(change.tolist(), drawn, strict=True)]


def test_masks_do_not_depend_on_the_other_sources_or_tensors():
    base, sources = normal_models(3, torch.float32)
    alone = merge_tensors(DareLinear(0.3), {"b": sources["b"]}, base)["w"] - base["w"]
    weighted = merge_tensors(DareLinear(0.3, (0.0, 1.0, 0.0)), sources, base)["w"] - base["w"]
    assert torch.equal(alone, weighted)
    more = {"b": {**sources["b"], "a": torch.ones(3)}}
    assert torch.equal(merge_tensors(DareLinear(0.3), more, {**base, "a": torch.zeros(3)})["w"] - base["w"], alone)


@pytest.mark.parametrize("method", [DareLinear(0.2), DellaLinear(0.3, 0.4)], ids=str)
def test_dropping_and_rescaling_keeps_the_expectation(method):
    elements = 1 << 20
    change = torch.linspace(1, 2, elements)
    merged = merge_tensors(method, {"a": {"w": change}}, {"w": torch.zeros(elements)})["w"]
    # Each half of the row keeps its sum: by five standard deviations of it (a change d kept with p has variance d^2 (1 - p) / p, p > 0.1).
    for half in (slice(None, elements // 2), slice(elements // 2, None)):
        deviation = math.sqrt(float((change[half].double() ** 2).sum()) * 0.9 / 0.1)
        assert abs(float(merged[half].double().sum() - change[half].double().sum())) < 5 * deviation


def test_della_keeps_the_share_of_each_rank_it_says():
    rows, columns = 2000, 50
    change = torch.rand(rows, columns, generator=torch.Generator().manual_seed(0)) + 0.5
    merged = merge_tensors(DellaLinear(0.5, 0.6), {"a": {"w": change}}, {"w": torch.zeros(rows, columns)})["w"]
    ranks = change.argsort(1).argsort(1)
    for rank in (0, 10, 25, 49):
        share = float((merged[ranks == rank] != 0).double().mean())
        assert abs(share - (0.2 + 0.6 * (rank + 0.5) / columns)) < 5 * 0.5 / math.sqrt(rows)  # five standard deviations at most


def test_no_sign_is_elected_where_the_votes_cancel():
    base, up, down = torch.ones(4), torch.tensor([1.5, 1.5, 1.0, 0.0]), torch.tensor([0.5, 0.0, 1.0, 1.25])
    merged = merge_tensors(Ties(1.0), {"up": {"w": up}, "down": {"w": down}}, {"w": base})["w"]
    assert merged.tolist() == [1.0, 0.0, 1.0, 0.0]
