"""TIES, DARE, Breadcrumbs, DELLA and SCE against their papers' formulas, written out naively in float64, element by element.

Most values lie on a coarse grid of binary fractions. There deltas, sums and votes are exact in every dtype, so ties, zeros and draws of the
vote happen all the time and must come out as the formula says; what remains is the rounding of quotients and of the result.
"""

import itertools
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import bits

import mergers.engine.layout
from foundation.errors import ConfigError
from mergers.engine.layout import row_elements
from mergers.engine.memory import merge_tensors
from mergers.merger import Inputs
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


def grid_models(count, shapes, dtype, seed, step=1):
    """A base and `count` sources with values in eighths and many repeats; changes are multiples of `step` eighths."""
    generator = torch.Generator().manual_seed(seed)

    def made(low, high):
        return {name: (torch.randint(low, high + 1, shape, generator=generator) / 8).to(dtype) for name, shape in shapes.items()}

    base = made(-8, 8)
    changes = [made(-3, 3) for _ in range(count)]
    return base, {"abc"[i]: {name: base[name] + step * change[name] for name in shapes} for i, change in enumerate(changes)}


def naive_merge(base, sources, dropped, weights, scale, consensus, normalize, exact=True):
    """The formula, one element at a time; `dropped(source, tensor, deltas)` thins out a flat list of one tensor's deltas.

    NaN where the vote hangs on a rounding, if the thinned deltas are not `exact`.
    """
    weights = weights or [1.0] * len(sources)
    merged = {}
    for name, anchor in base.items():
        thinned = []
        for source, tensors in sources.items():
            flat = (tensors[name].double() - anchor.double()).view(-1).tolist()
            thinned.append(dropped(source, name, flat))
        result = []
        for place, value in enumerate(anchor.double().view(-1).tolist()):
            column = [(weight, delta[place]) for weight, delta in zip(weights, thinned, strict=True)]
            if consensus:
                vote = sum(weight * delta for weight, delta in column)
                if not exact and 0 < sum(abs(weight * delta) for weight, delta in column) > 1e5 * abs(vote):
                    result.append(math.nan)
                    continue
                column = [(weight, delta) for weight, delta in column if delta * vote > 0]
            total = sum(weight * delta for weight, delta in column)
            if normalize:
                divisor = sum(weight for weight, _ in column)
                total = total / divisor if divisor else 0.0
            result.append(value + scale * total)
        merged[name] = torch.tensor(result, dtype=torch.float64).view(anchor.shape)
    return merged


def kept_band(deltas, first, last):
    """The deltas whose magnitude lies between those of two ranks (1 = largest)."""
    ordered = sorted((abs(delta) for delta in deltas), reverse=True)
    return [delta if ordered[last - 1] <= abs(delta) <= ordered[first - 1] else 0.0 for delta in deltas]


def assert_close(made, expected, dtype, largest=1):
    """Equal but for up to 8 roundings of quotients and products in the compute dtype, and one of the result in its own. `largest` is how
    large terms can be that cancel."""
    compute = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    for name, tensor in made.items():
        assert tensor.dtype == dtype
        allowed = torch.finfo(dtype).eps / 2 * expected[name].abs() + 8 * compute * (largest + expected[name].abs())
        assert (((tensor.double() - expected[name]).abs() <= allowed) | expected[name].isnan()).all()
        assert not tensor.isnan().any()


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


def normal_models(count, dtype, seed=0, elements=3000):
    """A base and sources that differ from it as a fine-tuned model does."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(elements, generator=generator) * 0.02
    made = {"abc"[index]: {"w": (base + torch.randn(elements, generator=generator) * 0.002).to(dtype)} for index in range(count)}
    return {"w": base.to(dtype)}, made


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


PER_SOURCE = [
    Ties((1.0, 0.3, 0.1)),
    TiesPerTensor((0.5, 1.0, 0.2), (0.2, 0.3, 0.5)),
    DareLinear((0.4, 1.0, 0.9), seed=1),
    DareTies((0.2, 0.5, 1.0), seed=1),
    Breadcrumbs((1.0, 0.6, 0.8), (0.0, 0.2, 0.05)),
    BreadcrumbsTies(0.6, (0.3, 0.0, 0.1)),
    DellaLinear((0.5, 0.3, 1.0), (0.2, 0.4, 0.0)),
    Della((0.4, 0.3, 0.7)),
]
"""Methods for three sources that thin each out differently."""
ALL = [
    *PER_SOURCE,
    Ties(0.3),
    Ties(0.3, (0.2, 0.3, 0.5), 0.8, normalize=False),
    TiesPerTensor(0.3),
    DareLinear(0.4, seed=1),
    DareTies(0.4, seed=1),
    Breadcrumbs(0.6, 0.1),
    BreadcrumbsTies(0.6, 0.1),
    DellaLinear(0.5),
    Della(0.5),
    Sce(0.4),
    Sce(),
]
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


def for_some(method, positions):
    """The method for the sources at these positions only."""
    values = {item.name: getattr(method, item.name) for item in fields(method)}
    chosen = {name: tuple(value[position] for position in positions) for name, value in values.items() if isinstance(value, tuple)}
    return replace(method, **chosen)


SOME = [Ties(0.5), TiesPerTensor(0.5), DareTies(0.9), Breadcrumbs(0.5, 0.1), Sce(0.5), *PER_SOURCE]


@pytest.mark.parametrize("method", SOME, ids=str)
def test_a_tensor_that_some_sources_lack_is_merged_over_the_others(method):
    base, sources = grid_models(3, {"v": (5, 3), "w": (40,)}, torch.float32, seed=5)
    del sources["b"]["v"]
    del sources["a"]["w"]
    made = merge_tensors(method, sources, base)
    for name, left_out in (("v", "b"), ("w", "a")):
        if isinstance(method, TiesPerTensor) or not method.pooled:
            alone = {source: {name: tensors[name]} for source, tensors in sources.items() if source != left_out}
            some = for_some(method, [position for position, source in enumerate("abc") if source != left_out])
            assert bits(made[name]) == bits(merge_tensors(some, alone, {name: base[name]})[name])
    if method.pooled:  # b holds w only, so its threshold is that of w
        flat = (sources["b"]["w"] - base["w"]).abs().sort(descending=True).values
        kept = (sources["b"]["w"] - base["w"]).abs() >= flat[int(at(method.density, 1) * 40) - 1]
        changes_c = sources["c"]["w"] - base["w"]
        untouched = ~kept & (changes_c == 0)
        assert torch.equal(made["w"][untouched], base["w"][untouched])


HELD = [held for size in (1, 2, 3) for held in itertools.combinations("abc", size)]


@thorough
@given(
    held=st.lists(st.sampled_from(HELD), min_size=4, max_size=4),
    density=st.sampled_from([0.4, (1.0, 0.5, 0.1), (0.3, 1.0, 1.0), (0.01, 0.7, 0.3)]),
    seed=st.integers(0, 1 << 20),
    typical=st.booleans(),
)
@pytest.mark.parametrize("method", [Ties, TiesPerTensor, Breadcrumbs])
def test_each_source_is_thinned_by_its_own_share_whatever_it_holds(method, held, density, seed, typical):
    """Many small blocks, so that thresholds go through all rounds; sources come, go and come late from tensor to tensor."""
    shapes = {"t": (90,), "u": (3, 40), "v": (5, 3), "w": (250,)}
    base, sources = grid_models(3, shapes, torch.float32, seed)
    if not typical:  # the first blocks are the sample, and tell nothing of the rest
        for tensors in sources.values():
            tensors["w"][20:] = base["w"][20:] + (tensors["w"][20:] - base["w"][20:]) * 2.0**20
    sources = {
        source: {name: tensors[name] for name, whose in zip(shapes, held, strict=True) if source in whose}
        for source, tensors in sources.items()
    }
    base = {name: tensor for name, tensor in base.items() if any(name in tensors for tensors in sources.values())}
    outliers = 0.0 if method is not Breadcrumbs else tuple(0.0 if at(density, position) == 1 else 0.2 for position in range(3))

    def threshold(position, source, name):
        chosen = tuple(sources[source]) if method is Ties else (name,)
        sizes = sorted((float(size) for each in chosen for size in (sources[source][each] - base[each]).abs().view(-1)), reverse=True)
        kept = max(1, int(at(density, position) * len(sizes)))
        top = min(int(at(outliers, position) * len(sizes)), len(sizes) - kept)
        return sizes[top], sizes[top + kept - 1]

    expected = {}
    for name, anchor in base.items():
        holders = {source: tensors for source, tensors in sources.items() if name in tensors}
        bounds = {source: threshold("abc".index(source), source, name) for source in holders}

        def dropped(source, _, flat, bounds=bounds):
            most, least = bounds[source]
            return [delta if least <= abs(delta) and (method is not Breadcrumbs or abs(delta) <= most) else 0.0 for delta in flat]

        expected |= naive_merge({name: anchor}, holders, dropped, None, 1.0, method.consensus, method().normalize)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", 10)
        merger = Breadcrumbs(density, outliers) if method is Breadcrumbs else method(density)
        made = merge_tensors(merger, sources, base)
    assert_close(made, expected, torch.float32)


@pytest.mark.parametrize("method", [method for method in ALL if hasattr(method, "density")], ids=str)
def test_one_number_for_all_is_that_number_for_each(method):
    base, sources = normal_models(3, torch.bfloat16)
    numbers = {name: at(getattr(method, name), 1) for name in ("density", "outliers", "spread") if hasattr(method, name)}
    one = merge_tensors(replace(method, **numbers), sources, base)["w"]
    each = merge_tensors(replace(method, **{name: (number,) * 3 for name, number in numbers.items()}), sources, base)["w"]
    assert bits(one) == bits(each)


@pytest.mark.parametrize("method", [Ties, TiesPerTensor, DareLinear, Breadcrumbs, BreadcrumbsTies, DellaLinear, Della])
def test_of_a_source_of_density_1_nothing_is_dropped(method):
    base, sources = normal_models(3, torch.float32)
    sources["b"]["w"][:10] = base["w"][:10] + 2.0**-20  # its least changes, and below its greatest
    for name in "ac":
        sources[name]["w"] = base["w"].clone()
    more = {name: (0.0, 0.0, 0.0) for name in ("outliers", "spread") if name in {item.name for item in fields(method)}}
    merged = merge_tensors(method(density=(0.5, 1.0, 0.3), **more), sources, base)["w"]
    torch.testing.assert_close(merged, sources["b"]["w"], rtol=1e-6, atol=1e-9)  # two roundings: of the change and of the sum
    whole = method(density=(1.0, 1.0, 1.0), **more)
    assert whole.rounds == 0
    assert bits(merge_tensors(whole, sources, base)["w"]) == bits(merge_tensors(method(density=1.0, **more), sources, base)["w"])


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Ties((0.5, 0.2, 0.1)), r"3 values of density for 2 sources \(a, b\); give one number for all, or one per source"),
        (Ties((0.5, 0.0)), r"density of 'b' is 0\.0; it is the share of each source's changes to keep"),
        (TiesPerTensor((1.5, 0.5)), r"density of 'a' is 1\.5"),
        (DareLinear((0.5, math.nan)), r"density of 'b' is nan"),
        (DareTies((0.5, 1e-6)), r"density of 'b' is 1e-06, which is 0 as a multiple of 2\^-16"),
        (Breadcrumbs((0.5, 0.9), 0.2), r"density 0\.9 and outliers 0\.2 of 'b' sum to 1\.1; .* lower density to 0\.8, or outliers"),
        (Breadcrumbs(0.5, (0.2,)), r"1 values of outliers for 2 sources"),
        (BreadcrumbsTies(0.5, (0.2, -0.1)), r"outliers of 'b' is -0\.1"),
        (DellaLinear((0.5, 0.9), 0.4), r"density 0\.9 with spread 0\.4 of 'b' asks for probabilities from 0\.7 to 1\.1"),
        (Della(0.5, (0.2, 0.2, 0.2)), r"3 values of spread for 2 sources"),
        (Della(0.5, (2.0, 0.2)), r"spread of 'a' is 2\.0"),
        (
            Ties(0.0),
            r"density is 0\.0; it is the share of each source's changes to keep, largest first, and must lie above 0 and at most 1",
        ),
        (Ties(1.5), r"density is 1\.5"),
        (TiesPerTensor(math.nan), r"density is nan"),
        (Ties(0.5, (1.0,)), r"1 weights for 2 sources \(a, b\); give one weight per source"),
        (Ties(0.5, (1.0, math.inf)), r"the weight of 'b' is inf; .* finite"),
        (Ties(0.5, (1.0, -0.5)), r"the weight of 'b' is -0\.5; where signs are elected or a mean is taken weights must not be negative"),
        (DareLinear(0.5, (1.0, -0.5), normalize=True), r"the weight of 'b' is -0\.5"),
        (Ties(0.5, (0.0, 0.0)), r"all weights are 0 \(a, b\)"),
        (Ties(0.5, scale=math.nan), r"scale is nan"),
        (DareLinear(1e-6), r"density is 1e-06, which is 0 as a multiple of 2\^-16"),
        (DareTies(-0.1), r"density is -0\.1; it is the probability that a change is kept"),
        (Breadcrumbs(0.9, 0.2), r"density 0\.9 and outliers 0\.2 sum to 1\.1; .* lower density to 0\.8, or outliers"),
        (BreadcrumbsTies(0.9, -0.1), r"outliers is -0\.1; .* must lie between 0 and 1"),
        (DellaLinear(0.9, 0.4), r"probabilities from 0\.7 to 1\.1; .* keep spread at most 0\.2"),
        (Della(0.1, 0.2), r"probabilities from 0 to 0\.2; .* keep spread below 0\.2"),
        (Sce(0.0), r"select is 0\.0"),
    ],
)
def test_hyperparameters_that_make_no_sense_are_refused(method, message):
    with pytest.raises(ConfigError, match=message):
        method.check(["a", "b"])


def test_what_is_taken():
    DareLinear(0.5, (1.0, -0.5)).check(["a", "b"])  # taking a task out
    Ties(0.2, (0.0, 2.0)).check(["a", "b"])
    Breadcrumbs(0.9, 0.1).check(["a"])
    with pytest.raises(ConfigError, match="needs at least 2 beside the base, got 1"):
        Sce().check(["a"])
    with pytest.raises(ConfigError, match="no sources to merge"):
        Ties().check([])


def test_roles_tell_the_weight_and_what_is_kept():
    assert Ties(0.2).roles(["a"]) == ("weight 1, largest 0.2 of its changes in the model",)
    assert TiesPerTensor(0.2, (0.5, 2)).roles(["a", "b"])[1] == "weight 2, largest 0.2 of its changes in each tensor"
    assert Ties((1.0, 0.2)).roles(["a", "b"])[1] == "weight 1, largest 0.2 of its changes in the model"
    assert (
        Breadcrumbs((0.9, 0.5), (0.0, 0.25)).roles(["a", "b"])[1] == "weight 1, 0.5 of its changes in each tensor, below the largest 0.25"
    )
    assert DareTies((1.0, 0.25), seed=3).roles(["a", "b"])[1] == "weight 1, 0.25 of its changes at random (seed 3)"
    assert (
        Della((0.5, 0.4), (0.1, 0.3))
        .roles(["a", "b"])[1]
        .startswith("weight 1, 0.4 of its changes at random, the larger the likelier (spread 0.3")
    )
    assert DareLinear(0.1, seed=4).roles(["a"]) == ("weight 1, 0.1 of its changes at random (seed 4)",)
    assert all(len(method.roles(["a", "b", "c"])) == 3 for method in ALL)
    assert all(method.files_from(["a"]) is None for method in ALL)


def test_a_base_is_needed():
    with pytest.raises(RuntimeError, match="tensor 'w' has come without its base"):
        Ties(1.0).merge(Inputs("w", 0, (torch.ones(2), torch.ones(2)), (0, 1)))
