"""Methods that thin out each source by a share of its own, and tensors that some sources lack."""

import itertools
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_sparse import ALL, PER_SOURCE, assert_close, grid_models, naive_merge, normal_models
from small_models import bits

import mergers.engine.layout
from mergers.engine.memory import merge_tensors
from mergers.merger import Inputs
from mergers.methods.breadcrumbs import Breadcrumbs, BreadcrumbsTies
from mergers.methods.dare import DareLinear, DareTies
from mergers.methods.della import Della, DellaLinear
from mergers.methods.sce import Sce
from mergers.methods.sparse import at
from mergers.methods.ties import Ties, TiesPerTensor

thorough = settings(max_examples=20, deadline=None)


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
        patch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", 20)
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


def test_a_source_of_density_1_is_not_counted_and_has_no_outliers():
    base, sources = normal_models(2, torch.float32)
    merger = Breadcrumbs((1.0, 0.5), (1e-10, 0.2), (1.0, 0.0))  # outliers within the room that check leaves for rounding
    merger.check(["a", "b"])
    counts = merger.observe(0, Inputs("w", 0, (sources["a"]["w"], sources["b"]["w"]), (0, 1), base["w"]))
    assert counts.sum(axis=1).tolist() == [0, 3000]
    torch.testing.assert_close(
        merge_tensors(merger, sources, base)["w"], sources["a"]["w"], rtol=1e-6, atol=1e-9
    )  # two roundings, as above


def test_thresholds_that_were_not_found_are_asked_for():
    inputs = Inputs("w", 0, (torch.ones(2), torch.ones(2)), (0, 1), torch.zeros(2))
    with pytest.raises(RuntimeError, match="tensor 'w' has come without its thresholds; Ties needs its counting rounds"):
        Ties((1.0, 0.5)).merge(inputs)
