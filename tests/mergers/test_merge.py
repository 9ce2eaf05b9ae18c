"""Whole merges from directory to directory: values, bytes that no way of cutting the work changes, what the output holds, and what failure leaves."""

import json
import os
import pickle
import random
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

import mergers.layout
from foundation.errors import ConfigError, InputError, ResourceError
from foundation.files import directory_manifest
from mergers import Granularity, InProcess, Source, WeightedAverage, WiseFT, execute, plan_merge, read_checkpoint
from mergers.checkpoint import INDEX

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.int64, torch.bool]


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def tensors(seed, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"model.embed.weight": (50, 8), "model.layers.0.w": (33, 7), "model.layers.1.w": (129, 3), "model.norm": (8,), "scalar": ()}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


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
    a, b = tensors(1, torch.float32), tensors(2, torch.float32)
    result = bench.merge(WeightedAverage(), a=bench.save("a", a), b=bench.save("b", b))
    merged = bench.load()
    for name in a:
        torch.testing.assert_close(
            merged[name].double(), (a[name].double() + b[name].double()) / 2, rtol=1e-6, atol=1e-7
        )  # a few float32 epsilons
    assert (result.tensors_merged, result.tensors_copied, result.parameters) == (5, 0, sum(tensor.numel() for tensor in a.values()))


def test_weighted_average(bench):
    a, b = tensors(1, torch.float32), tensors(2, torch.float32)
    bench.merge(WeightedAverage((0.3, 0.7)), a=bench.save("a", a), b=bench.save("b", b))
    for name, tensor in bench.load().items():
        torch.testing.assert_close(tensor.double(), 0.3 * a[name].double() + 0.7 * b[name].double(), rtol=1e-6, atol=1e-6)


def test_three_way_average(bench):
    parts = [tensors(seed) for seed in range(3)]
    paths = {name: bench.save(name, part) for name, part in zip("abc", parts, strict=True)}
    bench.merge(WeightedAverage((0.2, 0.3, 0.5)), **paths)
    for name, tensor in bench.load().items():
        truth = sum(weight * part[name].double() for weight, part in zip((0.2, 0.3, 0.5), parts, strict=True))
        torch.testing.assert_close(tensor.double(), truth, rtol=2**-8, atol=1e-6)  # one rounding to bfloat16


def test_result_loads_with_safetensors_and_is_marked_for_torch(bench):
    bench.merge(WeightedAverage(), a=bench.save("a", tensors(1)), b=bench.save("b", tensors(2)))
    with safe_open(bench.root / "out" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert sorted(file.keys()) == sorted(tensors(1))


# --- identities ---


@pytest.mark.parametrize(("alpha", "same_as"), [(0.0, "tuned"), (1.0, "previous")])
def test_alpha_at_its_ends_gives_a_source_back_to_the_byte(bench, alpha, same_as):
    paths = {"previous": bench.save("previous", tensors(1)), "tuned": bench.save("tuned", tensors(2))}
    bench.merge(WiseFT(alpha), **paths)
    source, merged = bench.load(same_as), bench.load()
    assert {name: bits(tensor) for name, tensor in merged.items()} == {name: bits(tensor) for name, tensor in source.items()}


@pytest.mark.parametrize("weights", [(0.1, 0.9), (0.9, 0.1), (0.3, 0.3, 0.4)])
def test_merging_a_model_with_itself_gives_its_bytes(bench, weights):
    """Seed defect 1: bf16 accumulation altered 8.9 % of such weights."""
    path = bench.save("x", tensors(1))
    result = bench.merge(WeightedAverage(weights), **{f"copy{index}": path for index in range(len(weights))})
    assert {name: bits(tensor) for name, tensor in bench.load().items()} == {name: bits(tensor) for name, tensor in tensors(1).items()}
    assert (result.tensors_merged, result.tensors_copied) == (0, 5)


def test_only_the_tuned_part_changes(bench):
    previous = tensors(1)
    tuned = previous | {"model.layers.1.w": tensors(2)["model.layers.1.w"]}
    result = bench.merge(WiseFT(0.1), previous=bench.save("p", previous), tuned=bench.save("t", tuned))
    merged = bench.load()
    assert [name for name in previous if bits(merged[name]) != bits(previous[name])] == ["model.layers.1.w"]
    assert (result.tensors_merged, result.tensors_copied) == (1, 4)


def test_five_stages_leave_frozen_weights_alone(bench):
    """Seed defect 1 compounded: each stage drifted further."""
    previous = bench.save("stage0", {"frozen": tensors(1)["model.layers.0.w"], "trained": torch.zeros(4)})
    for stage in range(1, 6):
        tuned = bench.load(previous) | {"trained": bench.load(previous)["trained"] + 1.0}
        previous = bench.merge(WiseFT(0.1), f"stage{stage}", previous=previous, tuned=bench.save(f"tuned{stage}", tuned)).output
    final = bench.load(previous)
    assert bits(final["frozen"]) == bits(tensors(1)["model.layers.0.w"])
    torch.testing.assert_close(final["trained"], torch.full((4,), 5 * 0.9))  # W_T = W_0 + (1 - alpha) * sum of updates


def test_integers_and_booleans_are_copied(bench):
    """Seed defect 4: integer tensors crashed the merge."""
    common = {"ids": torch.arange(7), "mask": torch.tensor([True, False, True])}
    bench.merge(WeightedAverage((0.1, 0.9)), a=bench.save("a", tensors(1) | common), b=bench.save("b", tensors(2) | common))
    merged = bench.load()
    assert torch.equal(merged["ids"], torch.arange(7))
    assert torch.equal(merged["mask"], common["mask"])


def test_integers_that_differ_are_refused_and_nothing_is_left(bench):
    a, b = tensors(1) | {"ids": torch.arange(7)}, tensors(2) | {"ids": torch.arange(1, 8)}
    with pytest.raises(InputError, match=r"tensor 'ids' \(I64\) differs between 'a', 'b'; .* must be the same in all sources"):
        bench.merge(WeightedAverage(), a=bench.save("a", a), b=bench.save("b", b))
    assert not (bench.root / "out").exists()
    assert bench.left_behind() == []


def test_mixed_float_dtypes_take_the_first_and_the_plan_and_config_say_so(bench):
    """Seed defect 8: the output's dtype was the first's without a word."""
    config = {"model_type": "llama", "dtype": "float32", "text_config": {"dtype": "float32"}}
    a, b = bench.save("a", tensors(1)), bench.save("b", tensors(2, torch.float32), config)
    plan = plan_merge(WeightedAverage(), bench.sources(a=a, b=b), bench.root / "out", files_from="b")
    assert "mixed dtypes, e.g. 'model.embed.weight' (BF16 in 'a', F32 in 'b'); the output takes the first source's, BF16" in "\n".join(
        plan.describe()
    )
    execute(plan)
    for name, tensor in bench.load().items():
        truth = (tensors(1)[name].double() + tensors(2, torch.float32)[name].double()) / 2
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
    monkeypatch.setattr(mergers.layout, "BLOCK_ELEMENTS", block)
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
    one = bench.merge(WeightedAverage(), "one", a=bench.save("a1", tensors(1)), b=bench.save("b1", tensors(2), shards=3))
    two = bench.merge(WeightedAverage(), "two", a=bench.save("a2", tensors(1), shards=2), b=bench.save("b2", tensors(2)))
    assert one.digest == two.digest
    assert sorted(one.files) == ["README.md", "config.json", "model.safetensors"]


def test_single_to_sharded(bench):
    paths = {"a": bench.save("a", tensors(1)), "b": bench.save("b", tensors(2))}
    bench.merge(WeightedAverage(), "single", **paths)
    result = bench.merge(WeightedAverage(), "sharded", options={"max_shard_size": 800}, **paths)
    shards = [name for name in result.files if name.endswith(".safetensors")]
    assert shards == [f"model-{number:05d}-of-00003.safetensors" for number in range(1, 4)]
    index = json.loads((bench.root / "sharded" / INDEX).read_text())
    assert list(index["weight_map"]) == sorted(tensors(1))
    assert index["metadata"]["total_size"] == sum(tensor.numel() * 2 for tensor in tensors(1).values())
    single, sharded = bench.load("single"), bench.load("sharded")
    assert all(bits(single[name]) == bits(sharded[name]) for name in single)
    again = bench.merge(WeightedAverage(), "again", a=bench.root / "sharded", b=bench.root / "sharded")
    assert sorted(again.files) == ["README.md", "config.json", "model.safetensors"]


def test_python_hash_seed_does_not_matter(bench):
    """Seed defect 10: the order of a set went into the files."""
    a, b = bench.save("a", tensors(1)), bench.save("b", tensors(2), shards=2)
    code = (
        "import sys; from pathlib import Path; from mergers import *\n"
        "s = [Source(n, read_checkpoint(Path(p))) for n, p in zip('ab', sys.argv[1:3])]\n"
        "print(execute(plan_merge(WeightedAverage(), s, Path(sys.argv[3]), max_shard_size=900)).digest)"
    )
    digests = set()
    for seed in ("0", "1", "2"):
        command = [sys.executable, "-c", code, str(a), str(b), str(bench.root / f"out{seed}")]
        done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        digests.add(done.stdout.strip())
    assert len(digests) == 1


# --- what the output holds ---


def test_output_is_a_whole_directory_and_nothing_else(bench):
    """Seed defects 9 and 10: processor and template were left behind, weights were written twice."""
    previous, tuned = bench.save("p", tensors(1)), bench.save("t", tensors(2), {"model_type": "llama", "mm_setting": 1})
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "tokenizer.model"):
        (previous / name).write_text("previous")
        (tuned / name).write_text("tuned")
    for name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"):
        (previous / name).write_text("previous")
    (tuned / "chat_template.jinja").write_text("tuned")
    (tuned / "additional_chat_templates").mkdir()
    (tuned / "additional_chat_templates" / "tool.jinja").write_text("tuned")
    for name in (
        "modeling.py",
        "training_args.bin",
        "optimizer.pt",
        "trainer_state.json",
        "all_results.json",
        "README.md",
        "adapter_config.json",
    ):
        (tuned / name).write_text("not wanted")
    result = bench.merge(WiseFT(0.1), previous=previous, tuned=tuned)
    out = bench.root / "out"
    assert sorted(result.files) == sorted(
        ["README.md", "additional_chat_templates/tool.jinja", "chat_template.jinja", "config.json", "generation_config.json", "merges.txt"]
        + [
            "model.safetensors",
            "preprocessor_config.json",
            "processor_config.json",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
        ]
        + ["video_preprocessor_config.json", "vocab.json"]
    )
    assert json.loads((out / "config.json").read_text())["mm_setting"] == 1, "what the last stage set must not be lost"
    assert (out / "tokenizer.json").read_text() == "tuned"
    assert (out / "preprocessor_config.json").read_text() == "previous", "a group the tuned model lacks comes from the previous"
    assert result.files == directory_manifest(out)
    other = bench.merge(WiseFT(0.1), "other", previous=previous, tuned=tuned, options={"files_from": "previous"})
    assert (other.output / "tokenizer.json").read_text() == "previous"


def test_groups_of_files_are_not_mixed(bench):
    a, b = bench.save("a", tensors(1)), bench.save("b", tensors(2))
    (a / "tokenizer.json").write_text("{}")
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (b / name).write_text("other")
    result = bench.merge(WeightedAverage(), a=a, b=b)
    assert sorted(result.files) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]


def test_card_tells_weights_and_sources_and_no_place_or_time(bench):
    paths = {"previous": bench.save("p", tensors(1)), "tuned": bench.save("t", tensors(2))}
    card = (bench.merge(WiseFT(0.1), **paths).output / "README.md").read_text()
    assert "| previous | weight 0.1 (alpha) | digest-of-previous |" in card
    assert "| tuned | weight 0.9 | digest-of-tuned |" in card
    assert "`wise_ft` (alpha = 0.1)" in card
    assert "5 tensors merged; 0 copied" in card
    assert str(bench.root) not in card
    assert time.strftime("%Y-") not in card


def test_files_are_readable_by_whom_the_umask_allows(bench):
    paths = {"a": bench.save("a", tensors(1)), "b": bench.save("b", tensors(2))}
    (paths["a"] / "config.json").chmod(0o600)
    before = os.umask(0o027)
    try:
        out = bench.merge(WeightedAverage(), options={"max_shard_size": 800}, **paths).output
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o640}
    assert stat.S_IMODE(out.stat().st_mode) == 0o750


def test_progress_and_byte_counts_add_up(bench):
    seen: list[tuple[int, int]] = []
    paths = {"a": bench.save("a", tensors(1)), "b": bench.save("b", tensors(2))}
    result = bench.merge(WeightedAverage(), progress=lambda *at: seen.append(at), options={"item_bytes": 200}, **paths)
    total = sum(tensor.numel() * 2 for tensor in tensors(1).values())
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 1
    assert (result.bytes_read, result.bytes_written) == (2 * total, total)


# --- failure ---


@dataclass(frozen=True)
class Fails:
    """An executor that breaks down half way."""

    error: type[BaseException]

    def map(self, function, items):
        for item in items[: len(items) // 2]:
            yield function(item)
        raise self.error("half way")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError])
def test_a_merge_that_fails_half_way_leaves_nothing(bench, error):
    paths = {"a": bench.save("a", tensors(1)), "b": bench.save("b", tensors(2))}
    with pytest.raises(error):
        bench.merge(WeightedAverage(), executor=Fails(error), options={"item_bytes": 100}, **paths)
    assert sorted(path.name for path in bench.root.iterdir()) == ["a", "b"]
    bench.merge(WeightedAverage(), **paths)


def test_a_failed_replacement_leaves_the_old_checkpoint(bench):
    paths = {"a": bench.save("a", tensors(1)), "b": bench.save("b", tensors(2))}
    old = bench.merge(WeightedAverage(), **paths)
    with pytest.raises(RuntimeError):
        bench.merge(WeightedAverage((0.1, 0.9)), executor=Fails(RuntimeError), options={"replace": True}, **paths)
    assert directory_manifest(old.output) == old.files
    new = bench.merge(WeightedAverage((0.1, 0.9)), options={"replace": True, "max_shard_size": 800}, **paths)
    assert directory_manifest(new.output) == new.files, "nothing of the old one may stay: loaders could take it"


def test_an_executor_that_loses_items_is_found_out(bench):
    class Loses:
        def map(self, function, items):
            return map(function, items[1:])

    with pytest.raises(RuntimeError, match="returned 4 outcomes for 5 work items"):
        bench.merge(
            WeightedAverage(), executor=Loses(), options={"item_bytes": 1}, a=bench.save("a", tensors(1)), b=bench.save("b", tensors(2))
        )


def test_kill_leaves_no_model_and_the_next_merge_clears_up(bench):
    a, b = bench.save("a", tensors(1)), bench.save("b", tensors(2))
    code = (
        "import os, signal, sys; from pathlib import Path; from mergers import *\n"
        "s = [Source(n, read_checkpoint(Path(p))) for n, p in zip('ab', sys.argv[1:3])]\n"
        "execute(plan_merge(WeightedAverage(), s, Path(sys.argv[3]), item_bytes=100), progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(a), str(b), str(bench.root / "out")], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = bench.left_behind()
    assert left.startswith(".out.")
    assert not (bench.root / left / "config.json").exists(), "must not look like a model"
    bench.merge(WeightedAverage(), "young", a=a, b=b)
    bench.merge(WeightedAverage(), a=a, b=b)
    assert bench.left_behind() == [left], "a directory this young may belong to a merge that is just starting"
    os.utime(bench.root / left, (0, 0))
    bench.merge(WeightedAverage(), options={"replace": True}, a=a, b=b)
    assert bench.left_behind() == []


def test_a_full_disk_is_a_resource_error(bench):
    """Runs in a process of its own, whose files may not grow past 100 bytes."""
    a, b = bench.save("a", tensors(1)), bench.save("b", tensors(2))
    code = (
        "import resource, signal, sys; from pathlib import Path; from mergers import *; import torch; from foundation.errors import ResourceError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); s = [Source(n, read_checkpoint(Path(p))) for n, p in zip('ab', sys.argv[1:3])]\n"
        "plan = plan_merge(WeightedAverage(), s, Path(sys.argv[3])); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: execute(plan)\n"
        "except ResourceError as error: print(error); sys.exit(4)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(a), str(b), str(bench.root / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr
    assert "free space there" in done.stdout
    assert sorted(path.name for path in bench.root.iterdir()) == ["a", "b"]


def test_too_little_disk_is_refused_before_work(bench, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(ResourceError, match=r"has 100 bytes free, the merge writes .* kB"):
        bench.merge(WeightedAverage(), a=bench.save("a", tensors(1)), b=bench.save("b", tensors(2)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_named(bench, dtype, value):
    broken = tensors(2, dtype)
    broken["model.layers.1.w"][100, 1] = value
    broken["model.norm"][3:5] = value
    paths = {"a": bench.save("a", tensors(1, dtype)), "b": bench.save("b", broken)}
    with pytest.raises(
        InputError, match=r"3 values in 2 tensors .* \('model.layers.1.w': 1 in source 'b'; 'model.norm': 2 in source 'b'\)"
    ):
        bench.merge(WeightedAverage(), **paths)
    assert bench.left_behind() == []
    bench.merge(WeightedAverage(), options={"allow_nonfinite": True}, **paths)


def test_a_value_too_large_for_the_first_dtype_is_named(bench):
    a, b = {"w": torch.ones(3, dtype=torch.float16)}, {"w": torch.tensor([1.0, 1e9, 1.0])}
    with pytest.raises(InputError, match="'w': 1 in the result as F16"):
        bench.merge(WeightedAverage(), a=bench.save("a", a), b=bench.save("b", b))


def test_a_source_cut_short_after_planning_is_named(bench):
    paths = {"a": bench.save("a", tensors(1)), "b": bench.save("b", tensors(2))}
    plan = plan_merge(WeightedAverage(), bench.sources(**paths), bench.root / "out")
    os.truncate(paths["b"] / "model.safetensors", 500)
    with pytest.raises(InputError, match=r"b/model.safetensors ended early"):
        execute(plan)


# --- the contract beyond averages ---


@dataclass(frozen=True)
class AddDifferences:
    """base + sum of (source - base), computed on the pieces a granularity gives; records their shapes."""

    granularity: ClassVar[Granularity] = Granularity.ROW
    needs_base: ClassVar[bool] = True
    statistics: ClassVar[tuple[str, ...]] = ()
    rounds: ClassVar[int] = 0
    shapes: ClassVar[dict[str, list]] = {}

    def check(self, source_names):
        pass

    def roles(self, source_names):
        return tuple("added" for _ in source_names)

    def files_from(self, source_names):
        return source_names[0]

    def merge(self, inputs):
        self.shapes.setdefault(inputs.name, []).append((inputs.start, tuple(inputs.tensors[0].shape)))
        base = inputs.base.float()
        return base + sum(tensor.float() - base for tensor in inputs.tensors)


@dataclass(frozen=True)
class AddWhole(AddDifferences):
    """The same on whole tensors."""

    granularity: ClassVar[Granularity] = Granularity.TENSOR


@pytest.mark.parametrize("merger", [AddDifferences(), AddWhole()])
def test_base_and_granularity_reach_the_merger(bench, monkeypatch, merger):
    monkeypatch.setattr(mergers.layout, "BLOCK_ELEMENTS", 20)
    merger.shapes.clear()
    parts = [tensors(seed, torch.float32) for seed in range(3)]
    a, b, base = (Source(name, read_checkpoint(bench.save(name, part))) for name, part in zip(("a", "b", "base"), parts, strict=True))
    execute(plan_merge(merger, [a, b], bench.root / "out", base=base, item_bytes=150))
    for name, tensor in bench.load().items():
        torch.testing.assert_close(tensor, parts[0][name] + parts[1][name] - parts[2][name], rtol=1e-5, atol=1e-5)
    if merger.granularity is Granularity.TENSOR:
        assert merger.shapes["model.layers.0.w"] == [(0, (33, 7))]
    else:
        assert merger.shapes["model.layers.0.w"][0] == (0, (2, 7)), "whole rows, as many as fit a block"
        assert merger.shapes["model.layers.0.w"][-1] == (32 * 7, (1, 7))
    with pytest.raises(ConfigError, match="measures every source from a base checkpoint; name one as base"):
        plan_merge(merger, [a, b], bench.root / "out2")
    with pytest.raises(ConfigError, match="has no use for a base, but 'base' is given"):
        plan_merge(WeightedAverage(), [a, b], bench.root / "out2", base=base)


def test_work_items_are_small(bench):
    many = {f"model.layers.{index}.weight": torch.zeros(4, 4) for index in range(200)}
    plan = plan_merge(WeightedAverage(), bench.sources(a=bench.save("a", many), b=bench.save("b", many)), bench.root / "out")
    assert len(pickle.dumps(plan.items[0])) < 200 * 400  # some 200 bytes a tensor


def test_importing_mergers_is_light():
    code = "import mergers, sys; mergers.WeightedAverage((0.5, 0.5)).check(['a', 'b']); print([m for m in ('torch', 'transformers', 'numpy', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_merging_does_not_import_transformers(bench):
    code = (
        "import sys; from pathlib import Path; from mergers import *\n"
        "s = [Source(n, read_checkpoint(Path(p))) for n, p in zip('ab', sys.argv[1:3])]\n"
        "execute(plan_merge(WeightedAverage(), s, Path(sys.argv[3]))); print('transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(bench.save("a", tensors(1))), str(bench.save("b", tensors(2))), str(bench.root / "out")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_describe_spells_the_plan_out(bench):
    paths = {"previous": bench.save("p", tensors(1)), "tuned": bench.save("t", tensors(2))}
    plan = plan_merge(WiseFT(0.1), bench.sources(**paths), Path(bench.root / "out"))
    text = "\n".join(plan.describe())
    assert "source 'previous': weight 0.1 (alpha)" in text
    assert "source 'tuned': weight 0.9" in text
    assert "wise_ft of previous, tuned: 5 tensors to merge, 0 to copy, 1,027 parameters, reads 4.11 kB, writes 2.05 kB" in text
    assert "model.safetensors" in text
    assert "config.json (from 'tuned')" in text
