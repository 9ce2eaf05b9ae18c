"""Real (tiny) Hugging Face models, loaded once and merged into in memory: they hold what the written merge, loaded, holds."""

import pytest
import torch
from small_models import bits
from test_models import llama, llava, qwen2_vl

from mergers import WiseFT, execute, plan_merge
from mergers.live import LiveMerge, put


@pytest.mark.parametrize("make", [llava, qwen2_vl], ids=lambda make: make.__name__)
@pytest.mark.parametrize("old_names_first", [True, False])
def test_names_on_disk_are_found_in_the_loaded_model(bench, make, old_names_first):
    """Old names on one side, today's on the other, and a vision tower that learning left alone."""
    previous, tuned = make(0), make(1)
    for name, parameter in tuned.named_parameters():
        if "vision" in name or "visual" in name:
            parameter.data.copy_(previous.get_parameter(name))
    previous.save_pretrained(bench.root / "previous", save_original_format=old_names_first)
    tuned.save_pretrained(bench.root / "tuned", save_original_format=not old_names_first, max_shard_size="20KB")
    sources = bench.sources(previous=bench.root / "previous", tuned=bench.root / "tuned")
    live = LiveMerge(sources)
    same = {name for name, parameter in tuned.named_parameters() if torch.equal(parameter, previous.get_parameter(name))}
    assert {live.in_memory_name(name) for name in live.kept()} == same
    assert any("vision" in name or "visual" in name for name in same)
    model = type(previous).from_pretrained(bench.root / "tuned")
    for alpha in (0.3, 1.0, 0.0):
        execute(plan_merge(WiseFT(alpha), sources, bench.root / "out", replace=True))
        loaded = type(previous).from_pretrained(bench.root / "out")
        live.merge_into(dict(model.named_parameters()), WiseFT(alpha))
        expected = {name: bits(parameter.data) for name, parameter in loaded.named_parameters()}
        assert {name: bits(parameter.data) for name, parameter in model.named_parameters()} == expected


def test_a_tied_head_follows_its_embedding(bench):
    for name, seed in (("previous", 0), ("tuned", 1)):
        llama(seed, tied=True).save_pretrained(bench.root / name)
    sources = bench.sources(previous=bench.root / "previous", tuned=bench.root / "tuned")
    live, model = LiveMerge(sources), llama(2, tied=True)
    put(dict(model.named_parameters()), ((live.in_memory_name(name), tensor) for name, tensor in live.merged(WiseFT(0.25))))
    execute(plan_merge(WiseFT(0.25), sources, bench.root / "out"))
    loaded = type(model).from_pretrained(bench.root / "out", dtype=torch.bfloat16)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert {n: bits(p.data) for n, p in model.state_dict().items()} == {n: bits(p.data) for n, p in loaded.state_dict().items()}
