"""Distances between checkpoints: held against their definitions in float64, exact over groups, the same bits however the work is cut."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import random_tensors

import mergers.engine.layout
from foundation.errors import ConfigError, InputError
from mergers import InProcess, Source, read_checkpoint
from mergers.distances.groups import group_of
from mergers.distances.measure import measure
from mergers.distances.metrics import METRICS, Column, Distance, metrics_of
from mergers.merger import Inputs
from mergers.sources.source import Expert

# --- definitions, written naively ---


def truth(pairs, density=0.2):
    """The metrics of a pair of lists of tensors (one entry per tensor: it is cut by itself), in float64."""
    a, b = (np.concatenate([pair[side].reshape(-1) for pair in pairs]) for side in (0, 1))
    cut = [np.concatenate([largest(pair[side].reshape(-1), density) for pair in pairs]) for side in (0, 1)]
    both = (a != 0) & (b != 0)
    norm = np.linalg.norm
    return {
        "elements": len(a),
        "l2": norm(a - b),
        "relative_l2": norm(a - b) / norm(a) if norm(a) else None,
        "cosine": (a @ b) / (norm(a) * norm(b)) if norm(a) * norm(b) else None,
        "sign_disagreement": float(np.mean(np.sign(a[both]) != np.sign(b[both]))) if both.any() else None,
        "ssd": soft_sign(a, b),
        "truncated_ssd": soft_sign(*cut),
    }


def soft_sign(a, b):
    held = (a != 0) | (b != 0)
    return float(1 - np.mean(np.abs(a[held] + b[held]) / (np.abs(a[held]) + np.abs(b[held])))) if held.any() else None


def largest(values, density):
    """The k = floor(density * n) values of largest magnitude (at least 1), and all that equal the k-th; 0 elsewhere."""
    magnitudes = np.sort(np.abs(values.astype(np.float32)))[::-1]
    return np.where(np.abs(values.astype(np.float32)) >= magnitudes[max(1, int(density * len(values))) - 1], values, 0)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value is None:
            assert found[name] is None, name
        else:
            assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name  # both are float64; only the order of sums differs


def save(bench, count=2, dtype=torch.bfloat16, edit=None, **options):
    models = [random_tensors(seed, dtype) for seed in range(count)]
    for index, model in enumerate(models):
        model["model.layers.0.w"][3] = 0
        model["model.norm"][index] = 0
    if edit:
        edit(models)
    sources = [Source("abcde"[index], read_checkpoint(bench.save("abcde"[index], model))) for index, model in enumerate(models)]
    return models, sources


@pytest.mark.parametrize("density", [0.2, 0.01, 1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_distances_of_weights_are_their_definitions(bench, monkeypatch, density, dtype):
    monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", 37)
    models, sources = save(bench, 3, dtype)
    found = measure(sources, density=density)
    assert found.pairs == (("a", "b"), ("a", "c"), ("b", "c"))
    for (first, second), pair in zip(combinations(models, 2), found.pairs, strict=True):
        arrays = {name: (first[name].double().numpy(), second[name].double().numpy()) for name in first}
        for name, both in arrays.items():
            assert_close(found.of(pair, [name]), truth([both], density))
        assert_close(found.total(pair), truth(list(arrays.values()), density))


def test_distances_of_task_vectors_are_measured_from_the_base(bench):
    models, sources = save(bench, 3)
    found = measure(sources[:2], base=sources[2])
    base = models[2]
    arrays = [tuple((model[name].double() - base[name].double()).numpy() for model in models[:2]) for name in base]
    assert_close(found.total(("a", "b")), truth(arrays))
    assert found.base == "c"


def test_a_group_is_measured_as_one_vector(bench):
    models, sources = save(bench)
    found = measure(sources)
    labels = {group.label: group for group in found.groups}
    assert set(labels) == {"embeddings", "norm", "scalar", "layers.0 w", "layers.1 w"}
    for label, name in {"embeddings": "model.embed.weight", "layers.1 w": "model.layers.1.w"}.items():
        arrays = [tuple(model[name].double().numpy() for model in models)]
        assert_close(found.group(("a", "b"), labels[label]), truth(arrays))
    total = found.total(("a", "b"))
    parts = [found.group(("a", "b"), group) for group in found.groups]
    assert math.fsum(part["l2"] ** 2 for part in parts) == pytest.approx(total["l2"] ** 2, rel=1e-12)
    assert sum(part["elements"] for part in parts) == total["elements"] == 1027
    mean = sum(part["ssd"] for part in parts) / len(parts)
    assert mean != pytest.approx(total["ssd"], rel=1e-6), "a mean over groups would be another number"


# --- what must hold for any vectors ---

numbers = st.floats(-1e6, 1e6, width=32)
vectors = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=30)


def observed(pairs, density=0.2):
    """The metrics of two vectors in memory."""
    observer, known = Distance(density), None
    tensors = tuple(torch.tensor(column, dtype=torch.float32) for column in zip(*pairs, strict=True))
    for number in filter(lambda number: observer.needs(number, known), range(observer.rounds)):
        known = observer.summarize(number, observer.observe(number, Inputs("x", 0, tensors, (0, 1), known=known)), known)
    return {"elements": len(pairs), **metrics_of(known[0])}


@given(vectors, st.sampled_from([0.1, 0.5, 1]))
def test_any_two_vectors(pairs, density):
    a, b = (np.array(column, dtype=np.float32).astype(np.float64) for column in zip(*pairs, strict=True))
    found = observed(pairs, density)
    assert_close(found, truth([(a, b)], density))
    back = observed([(second, first) for first, second in pairs], density)
    for metric in set(METRICS) - {"relative_l2"}:
        assert back[metric] == found[metric], f"{metric} is the same both ways"
    same = observed([(first, first) for first, _ in pairs], density)
    assert same["l2"] == 0
    assert {same["ssd"], same["truncated_ssd"], same["sign_disagreement"]} <= {0, None}
    assert same["cosine"] is None or same["cosine"] == pytest.approx(1, abs=1e-15)
    opposite = observed([(first, -first) for first, _ in pairs], density)
    assert {opposite["ssd"], opposite["truncated_ssd"], opposite["sign_disagreement"]} <= {1, None}


def test_no_element_means_no_value_where_the_definition_has_none():
    found = observed([(0.0, 0.0), (0.0, 1.0)])
    assert found["relative_l2"] is None
    assert found["cosine"] is None
    assert found["sign_disagreement"] is None
    assert (found["l2"], found["ssd"]) == (1, 0)
    assert observed([(0.0, -0.0)])["ssd"] is None


# --- the reduction ---


def table(found):
    return {(pair, name): row.tobytes() for pair, rows in found.sums.items() for name, row in rows.items()}


class Backwards:
    """An executor that gives outcomes in the other order."""

    def map(self, function, items):
        yield from (function(item) for item in reversed(items))


def test_the_same_bits_however_the_work_is_cut_and_shared(bench, monkeypatch):
    monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", 64)
    _, sources = save(bench, 3, torch.float32)
    base = Source("base", read_checkpoint(bench.save("base", random_tensors(9, torch.float32))))
    expected = table(measure(sources, base=base))
    for executor in (InProcess(3), Backwards()):
        for item_bytes in (200, 1000):
            assert table(measure(sources, base=base, executor=executor, item_bytes=item_bytes)) == expected


def test_progress_counts_the_bytes_of_all_passes(bench):
    _, sources = save(bench)
    seen = []
    measure(sources, progress=lambda done, total: seen.append((done, total)), item_bytes=200)
    assert seen[-1] == (4 * 2 * 2 * 1027,) * 2, "two guess the cuts (small tensors are their own sample), one finds them, one adds up"
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    seen.clear()
    measure(sources, density=1, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2 * 2 * 1027,) * 2


# --- what is compared ---


def test_experts_of_one_checkpoint_are_compared_where_they_differ(bench):
    tensors = {name: torch.randn(4, 4) for name in ("blocks.0.mlp.v.w", "blocks.0.mlp.l.w", "blocks.1.mlp.v.w", "blocks.1.mlp.l.w", "norm")}
    checkpoint = read_checkpoint(bench.save("moe", tensors))
    found = measure([Source(name, checkpoint, Expert(name, ("v", "l"))) for name in ("v", "l")])
    assert sorted(found.sums["v", "l"]) == ["blocks.0.mlp.w", "blocks.1.mlp.w"]
    assert "1 tensors are left out: they are shared by all experts" in found.notes
    first, second = ([tensors[f"blocks.{layer}.mlp.{name}.w"].double().numpy() for layer in (0, 1)] for name in ("v", "l"))
    assert_close(found.total(("v", "l")), truth(list(zip(first, second, strict=True))))


def test_integers_are_left_out_and_said_so(bench):
    _, sources = save(bench, edit=lambda models: [model.update(ids=torch.arange(3)) for model in models])
    found = measure(sources)
    assert "ids" not in found.sums["a", "b"]
    assert "1 tensors are left out: they hold integers, between which there is no distance" in found.notes


def test_a_partial_comparison_takes_what_two_hold(bench):
    def edit(models):
        del models[1]["scalar"]

    models, sources = save(bench, 3, edit=edit)
    with pytest.raises(InputError, match=r"source 'b' lacks 1 of 5 tensors, e\.g\. 'scalar'"):
        measure(sources)
    found = measure(sources, partial=True)
    assert {pair: len(rows) for pair, rows in found.sums.items()} == {("a", "b"): 4, ("a", "c"): 5, ("b", "c"): 4}
    arrays = [tuple(models[index][name].double().numpy() for index in (0, 2)) for name in models[0]]
    assert_close(found.total(("a", "c")), truth(arrays))


def test_what_makes_no_sense_is_refused(bench):
    _, sources = save(bench)
    with pytest.raises(ConfigError, match="a distance needs at least 2 checkpoints, got 1"):
        measure(sources[:1])
    with pytest.raises(ConfigError, match="density is 0; it is the share of each tensor"):
        measure(sources, density=0)
    with pytest.raises(ConfigError, match="2 sources are named 'a'"):
        measure([sources[0], sources[0]])
    other = Source("other", read_checkpoint(bench.save("other", {"ids": torch.arange(2)})))
    with pytest.raises(InputError, match="nothing to compare between other, again: 1 tensors hold integers"):
        measure([other, Source("again", other.checkpoint)])


def test_values_that_are_not_finite_are_refused(bench):
    _, sources = save(bench, edit=lambda models: models[1]["model.norm"].__setitem__(5, torch.nan))
    with pytest.raises(InputError, match=r"1 values in 1 tensors are NaN or infinite \('model\.norm': 1 in source 'b'\)"):
        measure(sources)


# --- groups ---

GROUPS = {
    "model.layers.3.mlp.up_proj.weight": "layers.3 mlp",
    "model.layers.3.self_attn.q_proj.bias": "layers.3 attention",
    "model.layers.3.post_attention_layernorm.weight": "layers.3 norm",
    "model.language_model.layers.0.mlp.experts.7.down_proj": "language_model layers.0 mlp",
    "model.vision_tower.encoder.layers.11.self_attn.out_proj.weight": "vision_tower layers.11 attention",
    "model.visual.blocks.0.norm1.weight": "visual layers.0 norm",
    "model.visual.merger.mlp.0.weight": "visual projector",
    "model.multi_modal_projector.linear_1.weight": "projector",
    "model.language_model.embed_tokens.weight": "language_model embeddings",
    "transformer.h.5.attn.c_attn.weight": "layers.5 attention",
    "transformer.blocks.3.gamma_1": "layers.3 gamma_1",
    "bert.encoder.layer.2.output.dense.weight": "bert layers.2 mlp",
    "transformer.norm.weight": "norm",
    "lm_head.weight": "head",
    "anything": "anything",
}


@pytest.mark.parametrize(("tensor", "label"), GROUPS.items())
def test_tensors_are_grouped_by_tower_layer_and_part(tensor, label):
    assert group_of(tensor).label == label


def test_every_column_is_measured():
    inputs = Inputs("x", 0, (torch.ones(3),) * 2, (0, 1), known=np.zeros((2, 1), np.float32))
    assert Distance().observe(Distance().last, inputs).shape == (1, len(Column))
