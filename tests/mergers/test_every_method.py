"""What holds for every merge method: the same bytes however the work is cut and carried out, and equal inputs come back as they are."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from every_method import EXAMPLES, Example, models_of, random_statistics
from every_method import test_every_method_has_an_example as test_every_method_has_an_example
from merge_bench import Bench
from safetensors.torch import save_file
from small_models import bits

import mergers.engine.layout
from mergers import InProcess, MergeResult, Source, execute, plan_merge, read_checkpoint
from mergers.checkpoints.header import read_header
from mergers.engine.memory import merge_tensors

every_method = pytest.mark.parametrize("example", EXAMPLES, ids=str)


class Shuffled:
    """Runs every item twice, in an order of its own."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def map(self, function, items):
        order = list(items)
        random.Random(self.seed).shuffle(order)
        for item in order:
            function(item)
            yield function(item)


class Trial:
    """An example's models on disk, to be merged in many ways."""

    def __init__(self, bench: Bench, example: Example, dtype: torch.dtype = torch.bfloat16) -> None:
        self.bench, self.example, self.merger = bench, example, example.merger
        self.models, self.base = models_of(example, dtype)
        self.statistics = {}
        if self.merger.statistic:
            self.statistics = {name: random_statistics(self.merger, seed) for seed, name in enumerate(self.models)}
        self.sources = [self.source(name, tensors) for name, tensors in self.models.items()]
        self.anchor = None if self.base is None else self.source("base", self.base)

    def source(self, name: str, tensors: dict[str, torch.Tensor]) -> Source:
        checkpoint = read_checkpoint(self.bench.save(name, tensors))
        if name not in self.statistics:
            return Source(name, checkpoint)
        place = self.bench.root / f"{name}.statistics.safetensors"
        save_file(self.statistics[name], place)
        return Source(name, checkpoint, statistics=read_header(place))

    def merge(self, output: str = "out", executor=None, **options: object) -> MergeResult:
        plan = plan_merge(self.merger, self.sources, self.bench.root / output, base=self.anchor, **options)  # type: ignore[arg-type]
        return execute(plan, executor)


def weights_digest(result: MergeResult) -> dict[str, str]:
    return {name: digest for name, digest in result.files.items() if name.endswith(".safetensors")}


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "f32"])
def test_files_merge_to_the_bytes_of_memory(bench, monkeypatch, example, dtype):
    monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", 64)
    trial = Trial(bench, example, dtype)
    trial.merge(item_bytes=300)
    expected = merge_tensors(trial.merger, trial.models, trial.base, trial.statistics)
    made = bench.load()
    assert made.keys() == expected.keys()
    assert {name: bits(tensor) for name, tensor in made.items()} == {name: bits(tensor) for name, tensor in expected.items()}
    assert any(bits(tensor) != bits(trial.sources and trial.models[example.names[0]][name]) for name, tensor in made.items())


@every_method
def test_neither_cutting_nor_order_nor_repetition_changes_a_byte(bench, monkeypatch, example):
    monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", 64)
    trial = Trial(bench, example)
    once = weights_digest(trial.merge("whole"))
    assert weights_digest(trial.merge("threads", InProcess(4), item_bytes=500)) == once
    for seed, size in ((1, 150), (2, 700), (3, 2000)):
        assert weights_digest(trial.merge(f"cut{size}", Shuffled(seed), item_bytes=size)) == once


@every_method
def test_equal_inputs_come_back_as_they_are(bench, example):
    trial = Trial(bench, example)
    same = trial.models[example.names[0]]
    trial.sources = [replace(source, checkpoint=trial.sources[0].checkpoint) for source in trial.sources]
    trial.anchor = trial.anchor and trial.source("base", same)
    result = trial.merge()
    assert {name: bits(tensor) for name, tensor in bench.load().items()} == {name: bits(tensor) for name, tensor in same.items()}
    assert result.tensors_merged == 0


@every_method
def test_a_tensor_that_some_sources_lack_is_merged_over_the_others(bench, example):
    trial = Trial(bench, example)
    last = example.names[-1]
    for name in ("norm", "layers.1.w"):
        del trial.models[last][name]
        trial.statistics.get(last, {}).pop(name, None)
    bench_root: Path = bench.root / last
    (bench_root / "model.safetensors").unlink()
    trial.sources = [trial.source(name, tensors) for name, tensors in trial.models.items()]
    trial.merge(partial=True)
    expected = merge_tensors(trial.merger, trial.models, trial.base, trial.statistics)
    assert {name: bits(tensor) for name, tensor in bench.load().items()} == {name: bits(tensor) for name, tensor in expected.items()}


@every_method
def test_values_that_are_not_finite_are_found_in_any_pass(bench, example):
    trial = Trial(bench, example)
    trial.models[example.names[1]]["layers.0.w"][3, 3] = torch.nan
    trial.sources = [trial.source(name, tensors) for name, tensors in trial.models.items()]
    with pytest.raises(Exception, match=rf"1 values in 1 tensors are NaN or infinite \('layers.0.w': 1 in source '{example.names[1]}'\)"):
        trial.merge()
    assert not (bench.root / "out").exists()


@every_method
def test_integers_and_what_only_the_base_holds_are_copied(bench, example):
    trial = Trial(bench, example)
    trial.merge("without", partial=True)
    positions = torch.arange(70000)
    for tensors in (*trial.models.values(), *([trial.base] if trial.base else [])):
        tensors["position_ids"] = positions
    if trial.base:
        trial.base["tower.weight"] = torch.randn(12, 3)
    trial.sources = [trial.source(name, tensors) for name, tensors in trial.models.items()]
    trial.anchor = trial.base and trial.source("base", trial.base)
    trial.merge("with", partial=True)
    made = bench.load("with")
    assert bits(made.pop("position_ids")) == bits(positions)
    assert trial.base is None or bits(made.pop("tower.weight")) == bits(trial.base["tower.weight"])
    assert {name: bits(tensor) for name, tensor in made.items()} == {name: bits(tensor) for name, tensor in bench.load("without").items()}


def test_equal_blocks_of_unequal_tensors_are_scaled_like_the_rest_by_slerp(bench, monkeypatch):
    """Its coefficients need not sum to 1, so copying what happens to be equal would depend on the cutting."""
    first, second = torch.randn(400), torch.randn(400)
    second[:100] = first[:100]
    models = {"a": {"w": first}, "b": {"w": second}}
    merger = Example("slerp", {"weight": 0.5}).merger
    whole = merge_tensors(merger, models)["w"]
    monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", 50)
    torch.testing.assert_close(merge_tensors(merger, models)["w"], whole, rtol=1e-6, atol=0)
    assert (whole[:100] / first[:100]).min() > 1.01
