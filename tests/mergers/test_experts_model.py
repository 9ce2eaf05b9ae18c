"""Merged experts as the model itself takes them: the directory loads as a shared model, and runs."""

import pytest
import torch
from small_models import bits

from mergers import Source, execute, plan_merge, read_checkpoint
from mergers.experts import SHARED_CONFIG, expert_sources, interpolation, modality_arithmetic
from models.modality_experts import load, pair_processor, save
from models.modality_experts.starts import new, reshaped
from models.modality_experts.tiny import digits_config, word_tokenizer

VARIANTS = ["all", "attention", "ffn", "layer_norm"]


@pytest.fixture(scope="module")
def seed(tmp_path_factory):
    """A shared model that has been trained a little, for what its weights are worth: random numbers everywhere."""
    place = tmp_path_factory.mktemp("seed")
    config = digits_config(heads=["itc", "itm"], hidden_size=16, intermediate_size=32, vocab_size=64)
    model = new(config, 0)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for tensor in model.state_dict().values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    save(model, pair_processor(word_tokenizer(["one two three"]), config), place)
    return place


def experts_of(seed, sharing, place, learned=0.05):
    """Experts that started from the seed and went their ways; its heads but one, and one more."""
    model = reshaped(seed, sharing=sharing, heads=["itc", "mlm"])
    with torch.no_grad():
        generator = torch.Generator().manual_seed(2)
        for tensor in model.state_dict().values():
            tensor.add_(learned * torch.randn(tensor.shape, generator=generator))
    save(model, pair_processor(word_tokenizer(["one two three"]), model.config), place)
    return read_checkpoint(place)


@pytest.mark.parametrize("sharing", VARIANTS)
def test_a_merged_directory_loads_as_a_shared_model_and_runs(seed, tmp_path, sharing):
    sources = expert_sources(experts_of(seed, sharing, tmp_path / "experts"), used_by="vqa")
    base = Source("seed", read_checkpoint(seed))
    execute(plan_merge(interpolation(0.5), sources, tmp_path / "merged", config=SHARED_CONFIG))
    execute(plan_merge(modality_arithmetic(0.5), sources, tmp_path / "added", config=SHARED_CONFIG, base=base))
    for output in ("merged", "added"):
        model = load(tmp_path / output)
        assert (model.config.sharing, model.config.heads) == ("shared", ["mlm", "itc"])
        shared = reshaped(seed, heads=["itc", "mlm"]).state_dict()
        assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {name: one.shape for name, one in shared.items()}
        with torch.no_grad():
            hidden = model.pair(torch.tensor([[2, 5, 6, 3]]), torch.ones(1, 4, dtype=torch.long), torch.zeros(1, 3, 32, 32))
        assert bool(hidden.isfinite().all())


def test_experts_that_learned_nothing_merge_into_their_seed(seed, tmp_path):
    sources = expert_sources(experts_of(seed, "all", tmp_path / "experts", learned=0.0))
    result = execute(plan_merge(interpolation(0.3), sources, tmp_path / "merged", config=SHARED_CONFIG))
    merged, shared = load(tmp_path / "merged").state_dict(), load(seed).state_dict()
    assert result.tensors_merged == 0
    assert all(bits(tensor) == bits(shared[name]) for name, tensor in merged.items() if not name.startswith("heads.mlm."))
