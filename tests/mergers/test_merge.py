"""Whole merges from directory to directory: values, identities, and bytes that no way of cutting the work changes."""

import json
import os
import pickle
import random
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from small_models import bits, random_tensors

import mergers.engine.layout
from foundation.errors import InputError
from mergers import InProcess, WeightedAverage, WiseFT, execute, plan_merge
from mergers.checkpoints.checkpoint import INDEX

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.int64, torch.bool]


@dataclass(frozen=True)
class Shuffled:
    """An executor that completes items in a random order and runs each twice, as a cluster that lost a worker would."""

    seed: int

    def map(self, function, items):
        order = list(items)
        random.Random(self.seed).shuffle(order)
        for item in order:
            function(pickle.loads(pickle.dumps(item)))
            yield function(item)


# --- the seed's own test list: loading, equal, weighted and three-way averaging ---


def test_equal_average(bench):
    a, b = random_tensors(1, torch.float32), random_tensors(2, torch.float32)
    result = bench.merge(WeightedAverage(), a=bench.save("a", a), b=bench.save("b", b))
    merged = bench.load()
    for name in a:
        torch.testing.assert_close(
            merged[name].double(), (a[name].double() + b[name].double()) / 2, rtol=1e-6, atol=1e-7
        )  # a few float32 epsilons
    assert (result.tensors_merged, result.tensors_copied, result.parameters) == (5, 0, sum(tensor.numel() for tensor in a.values()))


def test_weighted_average(bench):
    a, b = random_tensors(1, torch.float32), random_tensors(2, torch.float32)
    bench.merge(WeightedAverage((0.3, 0.7)), a=bench.save("a", a), b=bench.save("b", b))
    for name, tensor in bench.load().items():
        torch.testing.assert_close(tensor.double(), 0.3 * a[name].double() + 0.7 * b[name].double(), rtol=1e-6, atol=1e-6)


def test_three_way_average(bench):
    parts = [random_tensors(seed) for seed in range(3)]
    paths = {name: bench.save(name, part) for name, part in zip("abc", parts, strict=True)}
    bench.merge(WeightedAverage((0.2, 0.3, 0.5)), **paths)
    for name, tensor in bench.load().items():
        truth = sum(weight * part[name].double() for weight, part in zip((0.2, 0.3, 0.5), parts, strict=True))
        torch.testing.assert_close(tensor.double(), truth, rtol=2**-8, atol=1e-6)  # one rounding to bfloat16


def test_result_loads_with_safetensors_and_is_marked_for_torch(bench):
    bench.merge(WeightedAverage(), a=bench.save("a", random_tensors(1)), b=bench.save("b", random_tensors(2)))
    with safe_open(bench.root / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert sorted(file.keys()) == sorted(random_tensors(1))


# --- identities ---


@pytest.mark.parametrize(("alpha", "same_as"), [(0.0, "tuned"), (1.0, "previous")])
def test_alpha_at_its_ends_gives_a_source_back_to_the_byte(bench, alpha, same_as):
    paths = {"previous": bench.save("previous", random_tensors(1)), "tuned": bench.save("tuned", random_tensors(2))}
    bench.merge(WiseFT(alpha), **paths)
    source, merged = bench.load(same_as), bench.load()
    assert {name: bits(tensor) for name, tensor in merged.items()} == {name: bits(tensor) for name, tensor in source.items()}


@pytest.mark.parametrize("weights", [(0.1, 0.9), (0.9, 0.1), (0.3, 0.3, 0.4)])
def test_merging_a_model_with_itself_gives_its_bytes(bench, weights):
    """Seed defect 1: bf16 accumulation altered 8.9 % of such weights."""
    path = bench.save("x", random_tensors(1))
    result = bench.merge(WeightedAverage(weights), **{f"copy{index}": path for index in range(len(weights))})
    assert {name: bits(tensor) for name, tensor in bench.load().items()} == {
        name: bits(tensor) for name, tensor in random_tensors(1).items()
    }
    assert (result.tensors_merged, result.tensors_copied) == (0, 5)


def test_only_the_tuned_part_changes(bench):
    previous = random_tensors(1)
    tuned = previous | {"model.layers.1.w": random_tensors(2)["model.layers.1.w"]}
    result = bench.merge(WiseFT(0.1), previous=bench.save("p", previous), tuned=bench.save("t", tuned))
    merged = bench.load()
    assert [name for name in previous if bits(merged[name]) != bits(previous[name])] == ["model.layers.1.w"]
    assert (result.tensors_merged, result.tensors_copied) == (1, 4)


def test_five_stages_leave_frozen_weights_alone(bench):
    """Seed defect 1 compounded: each stage drifted further."""
    previous = bench.save("stage0", {"frozen": random_tensors(1)["model.layers.0.w"], "trained": torch.zeros(4)})
    for stage in range(1, 6):
        tuned = bench.load(previous) | {"trained": bench.load(previous)["trained"] + 1.0}
        previous = bench.merge(WiseFT(0.1), f"stage{stage}", previous=previous, tuned=bench.save(f"tuned{stage}", tuned)).output
    final = bench.load(previous)
    assert bits(final["frozen"]) == bits(random_tensors(1)["model.layers.0.w"])
    torch.testing.assert_close(final["trained"], torch.full((4,), 5 * 0.9))  # W_T = W_0 + (1 - alpha) * sum of updates


def test_integers_and_booleans_are_copied(bench):
    """Seed defect 4: integer tensors crashed the merge."""
    common = {"ids": torch.arange(7), "mask": torch.tensor([True, False, True])}
    bench.merge(WeightedAverage((0.1, 0.9)), a=bench.save("a", random_tensors(1) | common), b=bench.save("b", random_tensors(2) | common))
    merged = bench.load()
    assert torch.equal(merged["ids"], torch.arange(7))
    assert torch.equal(merged["mask"], common["mask"])


def test_integers_that_differ_are_refused_and_nothing_is_left(bench):
    a, b = random_tensors(1) | {"ids": torch.arange(7)}, random_tensors(2) | {"ids": torch.arange(1, 8)}
    with pytest.raises(InputError, match=r"tensor 'ids' \(I64\) differs between 'a', 'b'; .* must be the same in all sources"):
        bench.merge(WeightedAverage(), a=bench.save("a", a), b=bench.save("b", b))
    assert not (bench.root / "out").exists()
    assert bench.left_behind() == []


def test_mixed_float_dtypes_take_the_first_and_the_plan_and_config_say_so(bench):
    """Seed defect 8: the output's dtype was the first's without a word."""
    config = {"model_type": "llama", "dtype": "float32", "text_config": {"dtype": "float32"}}
    a, b = bench.save("a", random_tensors(1)), bench.save("b", random_tensors(2, torch.float32), config)
    plan = plan_merge(WeightedAverage(), bench.sources(a=a, b=b), bench.root / "out", files_from="b")
    assert "mixed dtypes, e.g. 'model.embed.weight' (BF16 in 'a', F32 in 'b'); the output takes BF16" in "\n".join(plan.describe())
    execute(plan)
    for name, tensor in bench.load().items():
        truth = (random_tensors(1)[name].double() + random_tensors(2, torch.float32)[name].double()) / 2
        torch.testing.assert_close(tensor.double(), truth, rtol=2**-8, atol=1e-6)  # one rounding to bfloat16
    written = json.loads((bench.root / "out" / "config.json").read_text())
    assert (written["dtype"], written["text_config"]["dtype"]) == ("bfloat16", "bfloat16")


# --- the same bytes however the work is cut ---

shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)
models = st.dictionaries(st.text("abc.", min_size=1, max_size=6), st.tuples(shapes, st.sampled_from(DTYPES)), min_size=1, max_size=8)


def build(spec, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.arange(max(1, torch.Size(shape).numel()))[: torch.Size(shape).numel()].view(shape).to(dtype)
        if dtype in (torch.int64, torch.bool)
        else torch.randn(shape, generator=generator).to(dtype)
        for name, (shape, dtype) in spec.items()
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spec=models,
    count=st.integers(2, 4),
    shards=st.integers(1, 3),
    block=st.integers(1, 40),
    item_bytes=st.integers(1, 300),
    seed=st.integers(0, 999),
)
def test_cutting_order_and_threads_do_not_change_a_byte(bench_factory, monkeypatch, spec, count, shards, block, item_bytes, seed):
    bench = bench_factory()
    paths = {f"s{index}": bench.save(f"s{index}", build(spec, seed + index), shards=shards if index % 2 else 1) for index in range(count)}
    merger = WeightedAverage()
    monkeypatch.undo()
    reference = bench.merge(merger, "reference", **paths)
    monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", block)
    runs = {"shuffled": Shuffled(seed), "threads": InProcess(threads=3), "serial": None}
    for name, executor in runs.items():
        result = bench.merge(merger, name, executor=executor, options={"item_bytes": item_bytes}, **paths)
        assert (result.files, result.digest) == (reference.files, reference.digest)
        assert (result.tensors_merged, result.tensors_copied) == (reference.tensors_merged, reference.tensors_copied)
    merged = bench.load("reference")
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in merged.items()} == {
        name: (torch.Size(shape), dtype) for name, (shape, dtype) in spec.items()
    }


def test_result_does_not_depend_on_how_sources_are_sharded(bench):
    one = bench.merge(WeightedAverage(), "one", a=bench.save("a1", random_tensors(1)), b=bench.save("b1", random_tensors(2), shards=3))
    two = bench.merge(WeightedAverage(), "two", a=bench.save("a2", random_tensors(1), shards=2), b=bench.save("b2", random_tensors(2)))
    assert one.digest == two.digest
    assert sorted(one.files) == ["README.md", "config.json", "model.safetensors"]


def test_single_to_sharded(bench):
    paths = {"a": bench.save("a", random_tensors(1)), "b": bench.save("b", random_tensors(2))}
    bench.merge(WeightedAverage(), "single", **paths)
    result = bench.merge(WeightedAverage(), "sharded", options={"max_shard_size": 800}, **paths)
    shards = [name for name in result.files if name.endswith(".safetensors")]
    assert shards == [f"model-{number:05d}-of-00003.safetensors" for number in range(1, 4)]
    index = json.loads((bench.root / "sharded" / INDEX).read_text())
    assert list(index["weight_map"]) == sorted(random_tensors(1))
    assert index["metadata"]["total_size"] == sum(tensor.numel() * 2 for tensor in random_tensors(1).values())
    single, sharded = bench.load("single"), bench.load("sharded")
    assert all(bits(single[name]) == bits(sharded[name]) for name in single)
    again = bench.merge(WeightedAverage(), "again", a=bench.root / "sharded", b=bench.root / "sharded")
    assert sorted(again.files) == ["README.md", "config.json", "model.safetensors"]


def test_every_tensor_is_aligned_to_its_element_size(bench):
    """Some readers map the file and look at the numbers in place; three booleans before a float32 would put it at an odd byte."""
    mixed = {"a": torch.tensor([True, False, True]), "b": torch.ones(3), "c": torch.ones(3, dtype=torch.bfloat16), "d": torch.arange(2)}
    path = bench.save("x", mixed)
    plan = plan_merge(WeightedAverage(), bench.sources(a=path, b=path), bench.root / "out")
    (file,) = plan.files
    assert all(file.starts[name] % tensor.element_size() == 0 for name, tensor in mixed.items())


def test_python_hash_seed_does_not_matter(bench):
    """Seed defect 10: the order of a set went into the files."""
    a, b = bench.save("a", random_tensors(1)), bench.save("b", random_tensors(2), shards=2)
    code = (
        "import sys; from pathlib import Path; from mergers import *\n"
        "s = [Source(n, read_checkpoint(Path(p))) for n, p in zip('ab', sys.argv[1:3])]\n"
        "print(execute(plan_merge(WeightedAverage(), s, Path(sys.argv[3]), max_shard_size=900)).digest)"
    )
    digests = set()
    for seed in ("0", "1"):
        command = [sys.executable, "-c", code, str(a), str(b), str(bench.root / f"out{seed}")]
        done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        digests.add(done.stdout.strip())
    assert len(digests) == 1
