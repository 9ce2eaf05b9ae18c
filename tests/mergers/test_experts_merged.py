"""Modality merging: three experts inside one checkpoint become one shared model, in every way of sharing and by every method."""

import json
from dataclasses import replace

import pytest
import torch
from every_method import EXAMPLES
from hypothesis import given
from hypothesis import strategies as st
from merge_bench import Bench
from safetensors.torch import load_file, save_file
from small_experts import OWN, grams, played, saved, seed_of, shapes, tensors_of
from small_models import bits

from foundation.errors import InputError
from mergers import InProcess, Need, Plan, execute, plan_merge
from mergers.checkpoints.header import read_header
from mergers.engine.memory import merge_tensors
from mergers.experts import (
    EXPERTS,
    SHARED_CONFIG,
    expert_sources,
    interpolation,
    modality_arithmetic,
    modality_regmean,
    sequential_arithmetic,
)
from mergers.methods.ema import Ema
from mergers.schedule import Schedule, Scheduled
from mergers.sources.views import Expert

VARIANTS = [sharing for sharing in OWN if sharing != "shared"]
FLOAT32 = {"rtol": 1e-6, "atol": 1e-6}
"""A few roundings of float32 numbers of the size of 1."""


def merged(bench: Bench, merger, sources, base=None, output="out", **options) -> tuple[Plan, dict[str, torch.Tensor]]:
    plan = plan_merge(merger, sources, bench.root / output, base=base, config=SHARED_CONFIG, **options)
    execute(plan)
    return plan, bench.load(output)


# --- what comes out ---


@pytest.mark.parametrize("sharing", VARIANTS)
def test_the_output_is_a_shared_model_and_what_is_shared_keeps_its_bits(bench, sharing):
    held = tensors_of(sharing)
    sources = expert_sources(saved(bench, "moe", sharing, held))
    _, made = merged(bench, interpolation(0.3), sources)
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == shapes("shared")
    config = json.loads((bench.root / "out" / "config.json").read_text())
    assert config == json.loads((bench.root / "moe" / "config.json").read_text()) | {"sharing": "shared"}
    for name, tensor in made.items():
        assert (name in held) == (not played(name, held))
        if name in held:
            assert bits(tensor) == bits(held[name]), name


@pytest.mark.parametrize(("layers", "fusion"), [(1, 0), (2, 2), (5, 1)])
def test_any_number_of_layers_and_any_fusion_layer(bench, layers, fusion):
    held = tensors_of("ffn", layers=layers, fusion=fusion)
    sources = expert_sources(saved(bench, "moe", "ffn", held))
    assert len(sources) == (2 if fusion == layers else 3)
    _, made = merged(bench, interpolation(0.5, [source.name for source in sources]), sources)
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == shapes("shared", layers=layers)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
def test_interpolation_of_two_and_of_three_experts(bench, ratio):
    held = tensors_of("all")
    _, made = merged(bench, interpolation(ratio), expert_sources(saved(bench, "moe", "all", held)))
    counts = set()
    for name, tensor in made.items():
        parts = [part.double() for part in played(name, held)]
        if not parts:
            continue
        counts.add(len(parts))
        weights = (ratio, 1 - ratio) if len(parts) == 2 else (2 / 3 * ratio, 2 / 3 * (1 - ratio), 1 / 3)
        truth = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        torch.testing.assert_close(tensor.double(), truth, **FLOAT32)
        if len(parts) == 2 and ratio in (0.0, 1.0):
            assert bits(tensor) == bits(played(name, held)[int(ratio == 0)])
    assert counts == {2, 3}


def test_only_the_experts_that_a_task_uses(bench):
    held = tensors_of("all")
    checkpoint = saved(bench, "moe", "all", held)
    apart, together = expert_sources(checkpoint, used_by="retrieval"), expert_sources(checkpoint, used_by="vqa")
    assert [source.name for source in apart] == ["v", "l"]
    assert [source.view for source in together] == [Expert("v", EXPERTS, ("vl",)), Expert("l", EXPERTS, ("vl",)), Expert("vl", EXPERTS)]
    assert together == expert_sources(checkpoint, used_by="nlvr2")
    _, of_two = merged(bench, interpolation(0.3, ("v", "l")), apart)
    _, of_used = merged(bench, interpolation(0.3), together, output="used")
    assert {name: tuple(tensor.shape) for name, tensor in of_used.items()} == shapes("shared")
    for name in of_two:
        parts = played(name, held)
        if len(parts) == 2:
            torch.testing.assert_close(of_two[name].double(), 0.3 * parts[0].double() + 0.7 * parts[1].double(), **FLOAT32)
            assert bits(of_two[name]) == bits(of_used[name]), "scaled to sum to 1, the weights are those of two experts"
        elif parts:
            torch.testing.assert_close(of_two[name].double(), 0.3 * parts[0].double() + 0.7 * parts[1].double(), **FLOAT32)
            assert bits(of_used[name]) == bits(parts[2]), "what one expert alone plays is copied"


# --- arithmetic on the seed ---


def test_arithmetic_is_the_papers_formula_in_any_order(bench):
    held, seed = tensors_of("all"), tensors_of("shared", 7)
    sources = expert_sources(saved(bench, "moe", "all", held))
    base = seed_of(bench, seed)
    results = [
        merged(bench, modality_arithmetic(0.75), order, base, f"out{index}")[1] for index, order in enumerate((sources, sources[::-1]))
    ]
    assert results[0].keys() == shapes("shared").keys()
    for name, tensor in results[0].items():
        parts, center = played(name, held), seed[name].double()
        truth = center + 0.75 * sum(part.double() - center for part in parts) if parts else held[name].double()
        torch.testing.assert_close(tensor.double(), truth, **FLOAT32)
        torch.testing.assert_close(tensor, results[1][name], **FLOAT32)
        if len(parts) < 3:
            assert bits(tensor) == bits(results[1][name]), "a sum of two is the same either way round, to the bit"


def test_a_lone_expert_is_copied_whatever_the_scale(bench):
    held = tensors_of("all")
    sources = expert_sources(saved(bench, "moe", "all", held), used_by="vqa")
    for number, merger in enumerate((modality_arithmetic(0.3), sequential_arithmetic(0.3))):
        _, made = merged(bench, merger, sources, seed_of(bench), f"out{number}")
        alone = [name for name in made if len(played(name, held)) == 3]
        assert alone
        assert all(bits(made[name]) == bits(played(name, held)[2]) for name in alone)


@pytest.mark.parametrize("scale", [0.25, 0.75, 1.0])
def test_the_published_recurrence_is_its_closed_form_and_a_moving_average(bench, scale):
    """What accumulates in place: the center itself moves towards each expert in turn."""
    held, seed = tensors_of("all"), tensors_of("shared", 7)
    _, made = merged(bench, sequential_arithmetic(scale), expert_sources(saved(bench, "moe", "all", held)), seed_of(bench, seed))
    rest = 1 - scale
    for name in (name for name in made if played(name, held)):
        parts, center = played(name, held), seed[name].double()
        moving = center.clone()
        for part in parts:
            moving += scale * (part.double() - moving)
        weights = (rest**2, rest * scale, scale) if len(parts) == 2 else (rest**3, rest**2 * scale, rest * scale, scale)
        closed = sum(weight * part.double() for weight, part in zip(weights, (center, *parts), strict=True))
        torch.testing.assert_close(closed, moving, rtol=1e-12, atol=1e-12)  # float64
        torch.testing.assert_close(made[name].double(), moving, **FLOAT32)
        trajectory = {f"step {index}": {name: part} for index, part in enumerate((seed[name], *parts))}
        assert bits(made[name]) == bits(merge_tensors(Ema(1 - scale), trajectory)[name])
        if scale == 1:
            assert bits(made[name]) == bits(parts[-1]), "the last expert alone"


def test_heads_are_the_experts_own_and_the_base_adds_nothing(bench):
    held, seed = tensors_of("ffn"), tensors_of("shared", 7)
    held["heads.itc_vl.logit_scale"] = torch.tensor(3.0)
    seed["heads.mim.out.bias"] = torch.ones(3)
    seed["embeddings.token_type.weight"] = torch.zeros(3, 4)  # a row more: no matter, it has no part
    del seed["pooler.dense.weight"], seed["encoder.layers.0.gamma1"], seed["encoder.layers.1.attention.qkv.weight"]
    plan, made = merged(bench, modality_arithmetic(0.5), expert_sources(saved(bench, "moe", "ffn", held)), seed_of(bench, seed))
    assert made.keys() == shapes("shared").keys() | {"heads.itc_vl.logit_scale"}
    assert bits(made["embeddings.token_type.weight"]) == bits(held["embeddings.token_type.weight"])
    assert "1 tensors that only base 'seed' holds are left out, e.g. 'heads.mim.out.bias'" in " ".join(plan.notes)
    assert {companion.source for companion in plan.companions} == {"v"}, "the output is the experts' model, not the seed's"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda seed: seed.pop("encoder.layers.1.mlp.fc1.bias"),
            r"base 'seed' lacks 1 of 12 tensors that the experts v, l, vl are .*1\.mlp",
        ),
        (
            lambda seed: seed.update({"encoder.layers.3.gamma1": torch.ones(4)}),
            r"holds 1 tensors in its layers .*'encoder\.layers\.3\.gamma1'",
        ),
        (lambda seed: seed.update({"encoder.layers.0.mlp.fc1.bias": torch.ones(5)}), r"has shape \(6,\) in 'v' and \(5,\) in 'seed'"),
    ],
)
def test_a_seed_of_another_model_is_refused(bench, change, message):
    seed = tensors_of("shared", 7)
    change(seed)
    held = {name: tensor for name, tensor in tensors_of("ffn").items() if "norm2" not in name}
    seed = {name: tensor for name, tensor in seed.items() if "norm2" not in name}
    with pytest.raises(InputError, match=message):
        merged(bench, modality_arithmetic(), expert_sources(saved(bench, "moe", "ffn", held)), seed_of(bench, seed))


# --- regression means ---


def measured_sources(bench, held, experts=EXPERTS, **options):
    return expert_sources(saved(bench, "moe", "all", held), statistics=grams(bench, held, experts), **options)


def test_regmean_is_the_least_squares_solution_and_means_elsewhere(bench):
    """The gradient of sum over experts of |X (W_m - W)^T|^2, which is 2 sum of (W - W_m) G, is zero: in float64, without a ridge."""
    held = tensors_of("all", dtype=torch.float64)
    sources = measured_sources(bench, held)
    _, made = merged(bench, modality_regmean(ridge=0.0), sources)
    matrices = 0
    for name, tensor in made.items():
        experts = [expert for expert in EXPERTS if played(name, held, (expert,))]
        parts = played(name, held)
        if len(parts) > 1 and tensor.ndim == 2:
            own = [".".join([*name.split(".")[:4], expert, *name.split(".")[4:]]) for expert in experts]
            measured = load_file(bench.root / "gram.safetensors")
            gradient = sum((tensor - held[one]) @ measured[one].double() for one in own)
            assert float(gradient.abs().max()) < 1e-13, name  # float64 solve of a well-conditioned system of 4 or 6 unknowns
            assert float((tensor - sum(parts) / len(parts)).abs().max()) > 1e-3, "not the plain mean"
            matrices += 1
        elif len(parts) > 1:
            torch.testing.assert_close(tensor, sum(parts) / len(parts), rtol=1e-15, atol=1e-15)
        else:
            assert bits(tensor) == bits(held[name])
    assert matrices == 4 * 3


def test_a_missing_gram_is_refused_by_name_or_a_mean_is_taken(bench):
    held = tensors_of("all")
    sources = measured_sources(bench, held, EXPERTS[:2])
    with pytest.raises(
        InputError, match=r"tensor 'encoder\.layers\.2\.attention\.proj\.weight': 1 of 3 sources have no gram for it \('vl'\)"
    ):
        merged(bench, modality_regmean(), sources)
    _, made = merged(bench, modality_regmean(missing="mean"), sources)
    parts = played("encoder.layers.2.mlp.fc1.weight", held)
    torch.testing.assert_close(made["encoder.layers.2.mlp.fc1.weight"].double(), sum(part.double() for part in parts) / 3, **FLOAT32)
    _, of_used = merged(bench, modality_regmean(), measured_sources(bench, held, EXPERTS[:2], used_by="retrieval"), output="used")
    lower = "encoder.layers.0.mlp.fc1.weight"
    assert bits(of_used[lower]) == bits(made[lower])


def test_a_gram_that_is_missing_for_all_experts_is_refused_too(bench):
    held = tensors_of("all")
    sources = measured_sources(bench, held)
    gone = {name: entry for name, entry in sources[0].statistics.items() if "layers.1.mlp" not in name or "fc2" not in name}
    with pytest.raises(
        InputError, match=r"no gram of 'encoder\.layers\.1\.mlp\.v\.fc2\.weight' nor .* v, l play in tensor .*missing: mean"
    ):
        merged(bench, modality_regmean(), [replace(source, statistics=gone) for source in sources])


# --- every method of the table ---


ON_EXPERTS = [example for example in EXAMPLES if example.method != "wise_ft" and not example.schedule]
"""WiSE-FT is between a previous and a tuned model; the schedules are for names of other models."""


@pytest.mark.parametrize("example", ON_EXPERTS, ids=str)
def test_every_method_merges_experts_to_the_same_bytes_with_any_number_of_threads(bench, example):
    merger, held = example.merger, tensors_of("all", dtype=torch.bfloat16)
    statistics = {}
    if merger.statistic and merger.statistic.per_element:
        save_file({name: torch.rand(shape) for name, shape in shapes("all").items()}, bench.root / "fisher.safetensors")
        statistics = read_header(bench.root / "fisher.safetensors")
    elif merger.statistic:
        statistics = grams(bench, held)
    sources = expert_sources(saved(bench, "moe", "all", held), EXPERTS[: example.sources], statistics=statistics)
    base = None if merger.base is Need.NO else seed_of(bench, {k: v.to(torch.bfloat16) for k, v in tensors_of("shared", 7).items()})
    results = []
    for threads in (1, 2):
        plan = plan_merge(merger, sources, bench.root / f"out{threads}", base=base, config=SHARED_CONFIG, item_bytes=400)
        results.append(execute(plan, InProcess(threads)))
    assert results[0].files == results[1].files
    made = bench.load("out1")
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == shapes("shared")
    assert all(bits(made[name]) == bits(held[name]) for name in made if name in held)
    assert results[0].tensors_merged == 3 * 13


def test_hyperparameters_may_differ_over_the_depth_of_the_experts(bench):
    held, seed = tensors_of("all"), tensors_of("shared", 7)
    scale = Schedule((("encoder.layers.*", (0.0, 1.0)), ("*", 0.5)))
    merger = Scheduled(modality_arithmetic(), (("scale", scale),))
    _, made = merged(bench, merger, expert_sources(saved(bench, "moe", "all", held), ("v", "l")), seed_of(bench, seed))
    for layer, factor in ((0, 0.0), (1, 0.5), (2, 1.0)):
        name = f"encoder.layers.{layer}.mlp.fc1.weight"
        center = seed[name].double()
        truth = center + factor * sum(part.double() - center for part in played(name, held, EXPERTS[:2]))
        torch.testing.assert_close(made[name].double(), truth, **FLOAT32)


@given(st.floats(0, 1), st.integers(2, 3), st.integers(0, 10**6))
def test_interpolation_lies_between_its_experts_and_turns_with_its_ratio(ratio, count, number):
    generator = torch.Generator().manual_seed(number)
    parts = {expert: {"w": torch.randn(17, generator=generator)} for expert in EXPERTS[:count]}
    made = merge_tensors(interpolation(ratio, tuple(parts)), parts)["w"]
    stacked = torch.stack([held["w"] for held in parts.values()])
    room = 1e-6 * stacked.abs().amax()  # a few roundings of float32
    assert bool(((made >= stacked.amin(0) - room) & (made <= stacked.amax(0) + room)).all())
    turned = parts | {"v": parts["l"], "l": parts["v"]}
    torch.testing.assert_close(merge_tensors(interpolation(1 - ratio, tuple(turned)), turned)["w"], made, rtol=1e-5, atol=1e-6)
