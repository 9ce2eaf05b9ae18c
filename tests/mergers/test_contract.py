"""The merger contract beyond averages: a base, whole rows, whole tensors."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from small_models import random_tensors

import mergers.engine.layout
from foundation.errors import ConfigError
from mergers import Granularity, Need, Source, WeightedAverage, execute, plan_merge, read_checkpoint
from mergers.merger import Method


@dataclass(frozen=True)
class AddDifferences(Method):
    """base + sum of (source - base), computed on the pieces a granularity gives; records their shapes."""

    granularity: ClassVar[Granularity] = Granularity.ROW
    base: ClassVar[Need] = Need.REQUIRED
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
    monkeypatch.setattr(mergers.engine.layout, "BLOCK_ELEMENTS", 20)
    merger.shapes.clear()
    parts = [random_tensors(seed, torch.float32) for seed in range(3)]
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


def test_a_merger_sees_one_torch_thread_and_the_caller_keeps_theirs(bench, monkeypatch):
    seen = []
    monkeypatch.setattr(AddWhole, "merge", lambda self, inputs: seen.append(torch.get_num_threads()) or inputs.tensors[0])
    a, b, base = (Source(name, read_checkpoint(bench.save(name, random_tensors(seed)))) for seed, name in enumerate(("a", "b", "base")))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        execute(plan_merge(AddWhole(), [a, b], bench.root / "out", base=base))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}
