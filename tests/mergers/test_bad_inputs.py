"""Sources that do not fit one another and requests that must be refused, by message: what, where, what to do. From headers alone."""

import dataclasses

import pytest
import torch

from foundation.errors import ConfigError, InputError
from mergers import MERGERS, WeightedAverage, WiseFT, execute, plan_merge
from mergers.checkpoints.header import read_header


def tensors(**changed):
    found = {f"model.layers.{index}.w": torch.ones(4, 3) for index in range(4)}
    found |= {name.replace("__", "."): tensor for name, tensor in changed.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def plan(bench, a, b, merger=None, **options):
    return plan_merge(merger or WeightedAverage(), bench.sources(a=a, b=b), bench.root / "out", **options)


# --- sources that do not fit one another ---


def test_missing_tensors_are_refused(bench):
    """Seed defect 2: tensors that one source lacked were dropped, and the model loaded them at random."""
    a, b = bench.save("a", tensors()), bench.save("b", tensors(model__layers__2__w=None))
    with pytest.raises(
        InputError,
        match=r"source 'b' lacks 1 of 4 tensors, e\.g\. 'model\.layers\.2\.w' \(which 'a' holds\); .* partial: true to merge",
    ):
        plan(bench, a, b)
    with pytest.raises(InputError, match=r"source 'a' lacks 1 of 4 tensors"):
        plan(bench, b, a)  # the same as an extra tensor of the second source


def test_partial_merges_over_the_holders_and_says_so(bench):
    full, part = tensors(extra=torch.full((2,), 7.0)), {name: tensor * 3 for name, tensor in tensors(model__layers__2__w=None).items()}
    made = plan(bench, bench.save("a", full), bench.save("b", part), partial=True)
    text = "\n".join(made.describe())
    assert "2 of 5 tensors are merged over the sources that hold them, weights scaled to sum to 1, e.g. 'extra' over 'a'" in text
    execute(made)
    merged = bench.load()
    assert torch.equal(merged["extra"], full["extra"])
    assert torch.equal(merged["model.layers.2.w"], full["model.layers.2.w"])
    assert torch.equal(merged["model.layers.1.w"], torch.full((4, 3), 2.0))


MEANS = ["weighted_average", "spherical_average", "karcher", "fisher", "regmean"]
SUMS = ["task_arithmetic", "ties", "ties_per_tensor", "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties", "della"]


@pytest.mark.parametrize("method", [*MEANS, *SUMS])
def test_weights_that_vanish_over_the_holders_are_refused_by_the_plan(bench, method):
    """Before a byte is written, also where the method would take the mean only because nothing was measured of the tensor."""
    extra = torch.arange(6.0).view(2, 3)
    held = {name: bench.save(name, tensors(extra=extra + index)) for index, name in enumerate("ac")}
    sources = bench.sources(a=held["a"], b=bench.save("b", tensors(extra=None)), c=held["c"])
    given = {"density": 0.5} if {"density"} & {field.name for field in dataclasses.fields(MERGERS[method])} else {}
    summed = {"normalize": True} if method in SUMS else {}
    base = bench.sources(base=bench.save("base", tensors(extra=extra)))[0] if method in SUMS else None
    if MERGERS[method].statistic:
        measured = bench.save("measured", {"model.layers.0.w": torch.ones(4, 3) if method == "fisher" else torch.eye(3)})
        statistics = read_header(measured / "model.safetensors")
        sources = [dataclasses.replace(source, statistics=statistics) for source in sources]

    def planned(weights, output="out", **changed):
        merger = MERGERS[method](weights=weights, **{**given, **summed, **changed})
        return plan_merge(merger, sources, bench.root / output, base=base, partial=True)

    with pytest.raises(ConfigError, match=r"tensor 'extra'.*(weight 0|cannot be normalized)"):
        planned((0.0, 1.0, 0.0))
    execute(planned((0.2, 0.8, 0.0)))
    if method in SUMS:
        execute(planned((0.0, 1.0, 0.0), "summed", normalize=False))
        assert torch.equal(bench.load("summed")["extra"], extra)


def test_models_without_a_common_name_are_refused_even_as_partial(bench):
    a, b = bench.save("a", tensors()), bench.save("b", {"other.w": torch.ones(2)})
    with pytest.raises(InputError, match=r"source 'a' lacks 1 of 5 tensors, e\.g\. 'other\.w' \(which 'b' holds\); it has none in common"):
        plan(bench, a, b, partial=True)


@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (3, 4), (12,), (1,), (), (4, 3, 1)])
def test_shapes_that_differ_are_refused_broadcastable_or_not(bench, shape):
    """Seed defect 5: (2, 3) + (1, 3) was broadcast without a word."""
    a, b = bench.save("a", tensors()), bench.save("b", tensors(model__layers__1__w=torch.ones(shape)))
    with pytest.raises(InputError, match=r"tensor 'model\.layers\.1\.w' has shape \(4, 3\) in 'a' and .* in 'b'; shapes must be equal"):
        plan(bench, a, b)


def test_dtypes_that_do_not_mix_are_refused(bench):
    a, b = bench.save("a", tensors()), bench.save("b", tensors(model__layers__1__w=torch.ones(4, 3, dtype=torch.int32)))
    with pytest.raises(
        InputError, match=r"tensor 'model\.layers\.1\.w' has dtype F32 in 'a' and I32 in 'b'; only F64, F32, F16, BF16 may be mixed"
    ):
        plan(bench, a, b)


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({"model_type": "llama"}, {"model_type": "qwen2"}, "model_type is 'llama' in 'a', 'qwen2' in 'b'"),
        ({"num_attention_heads": 8}, {"num_attention_heads": 16}, "num_attention_heads is 8 in 'a', 16 in 'b'"),
        ({"text_config": {"head_dim": 8}}, {"text_config": {"head_dim": 4}}, "text_config.head_dim is 8 in 'a', 4 in 'b'"),
    ],
)
def test_other_architectures_are_refused(bench, first, second, named):
    """Seed defect 11: nothing checked that the checkpoints descend from one base, and equal shapes do not prove it."""
    with pytest.raises(InputError, match=f"not of one architecture: .*{named}"):
        plan(bench, bench.save("a", tensors(), first), bench.save("b", tensors(), second))


def test_other_differences_of_the_configs_are_noted(bench):
    a, b = (
        bench.save("a", tensors(), {"rope_theta": 1e4, "use_cache": True}),
        bench.save("b", tensors(), {"rope_theta": 5e5, "use_cache": False}),
    )
    assert plan(bench, a, b).notes == ("configs differ: rope_theta is 10000.0 in 'a', 500000.0 in 'b'",)


def test_no_config_anywhere_is_refused(bench):
    paths = [bench.save(name, tensors()) for name in "ab"]
    for path in paths:
        (path / "config.json").unlink()
    with pytest.raises(InputError, match=r"none of the sources \(a, b\) has a config.json"):
        plan(bench, *paths)


# --- requests ---


def test_requests_that_cannot_be_honoured(bench):
    a, b = bench.save("a", tensors()), bench.save("b", tensors())
    with pytest.raises(ConfigError, match="3 weights for 2 checkpoints"):
        plan(bench, a, b, WeightedAverage((0.2, 0.3, 0.5)))
    with pytest.raises(ConfigError, match="exactly two sources named previous, tuned"):
        plan(bench, a, b, WiseFT())
    with pytest.raises(ConfigError, match="files_from: unknown source 'c'"):
        plan(bench, a, b, files_from="c")
    with pytest.raises(ConfigError, match="max_shard_size is 0"):
        plan(bench, a, b, max_shard_size=0)
    twice = bench.sources(a=a) + bench.sources(a=b)
    with pytest.raises(ConfigError, match="2 sources are named 'a'; give each its own name"):
        plan_merge(WeightedAverage(), twice, bench.root / "out")


def test_outputs_that_would_overwrite_something(bench):
    a, b = bench.save("a", tensors()), bench.save("b", tensors())
    sources = bench.sources(a=a, b=b)
    for output, message in [
        (a, "lies at, above or inside source 'a'"),
        (a / "merged", "lies at, above or inside source 'a'"),
        (bench.root, "lies at, above or inside source 'a'"),
        (
            bench.save("full", tensors()),
            r"exists and is not empty \(it holds config.json\); choose another output, or allow it to be replaced",
        ),
    ]:
        with pytest.raises(ConfigError, match=message):
            plan_merge(WeightedAverage(), sources, output)
    for replaced in (a, bench.root):
        with pytest.raises(ConfigError, match="lies at, above or inside"):
            plan_merge(WeightedAverage(), sources, replaced, replace=True)
    home = bench.root / "home"
    home.mkdir()
    plan_merge(WeightedAverage(), sources, home)  # empty: nothing to lose
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="does not look like a checkpoint"):
        plan_merge(WeightedAverage(), sources, home, replace=True)
    with pytest.raises(ConfigError, match="is a file; choose a directory"):
        plan_merge(WeightedAverage(), sources, home / "thesis.tex")
    plan_merge(WeightedAverage(), sources, bench.root / "full", replace=True)
