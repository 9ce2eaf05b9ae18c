"""Files written as another one is laid out: the bytes that safetensors itself would write."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from foundation.errors import InputError
from foundation.files import file_sha256
from trainers.checkpoints import layout as module
from trainers.checkpoints.layout import read_layout, write_like
from trainers.checkpoints.output import check_names, write_output
from trainers.checkpoints.resume import is_whole, seal, trained_state

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]
SHAPES = st.lists(st.integers(0, 5), max_size=3)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(tensors=st.lists(st.tuples(SHAPES, st.sampled_from(DTYPES), st.booleans()), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_it_writes_what_safetensors_would(tmp_path: Path, tensors: list[tuple[list[int], torch.dtype, bool]], seed: int) -> None:
    """Some tensors anew, rounded from float32, the others copied."""
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> dict[str, torch.Tensor]:
        return {f"t{place}": torch.randn(shape, generator=generator).to(dtype) for place, (shape, dtype, _) in enumerate(tensors)}

    old, new = drawn(), {name: tensor.float() + 0.001 for name, tensor in drawn().items()}
    given_anew = {name: new[name] for place, name in enumerate(new) if tensors[place][2]}
    save_file(old, tmp_path / "old", {"note": "kept"})
    save_file({name: given_anew.get(name, old[name]).to(old[name].dtype) for name in old}, tmp_path / "wanted", {"note": "kept"})
    digest = write_like(read_layout(tmp_path / "old"), tmp_path / "new", given_anew)
    assert digest == file_sha256(tmp_path / "new") == file_sha256(tmp_path / "wanted")


def test_long_tensors_are_copied_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 1000)
    save_file({"a": torch.randn(3333), "b": torch.randn(7)}, tmp_path / "old")
    assert write_like(read_layout(tmp_path / "old"), tmp_path / "new", {}) == file_sha256(tmp_path / "old") == file_sha256(tmp_path / "new")


@pytest.mark.parametrize("content", [b"", b"abc", b"<html> no safetensors", (20).to_bytes(8, "little") + b'{"a": {"dtype": 1}}  '])
def test_what_has_no_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match="no safetensors header"):
        read_layout(tmp_path / "file")


@pytest.fixture
def tied(tmp_path: Path, base: Path) -> Path:
    """A language model with tied embeddings whose file holds both names, as some do."""
    place = tmp_path / "tied"
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32}
    LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True)).save_pretrained(place)  # type: ignore[arg-type]
    AutoTokenizer.from_pretrained(base).save_pretrained(place)
    tensors = load_file(place / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    return place


@pytest.mark.parametrize("partly", [False, True])
def test_tied_embeddings_change_under_both_names(tied: Path, tmp_path: Path, partly: bool) -> None:
    model = LlamaForCausalLM.from_pretrained(tied)
    check_names(model, tied)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("embed" in name)
    with torch.no_grad():
        model.model.embed_tokens.weight.add_(1.0)
    write_output(model, AutoTokenizer.from_pretrained(tied), tied, tmp_path / "out", state=trained_state(model) if partly else None)
    before, after = load_file(tied / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"lm_head.weight", "model.embed_tokens.weight"}
    assert torch.equal(after["lm_head.weight"], after["model.embed_tokens.weight"])


def test_names_that_do_not_fit_the_start_are_refused(tied: Path, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tied)
    tensors = load_file(tied / "model.safetensors")
    tensors["model.other_norm.weight"] = tensors.pop("model.norm.weight")
    save_file(tensors, tied / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"'model.norm.weight' of the model is absent in .*, which has 'model.other_norm.weight' instead"):
        check_names(model, tied)


def test_a_manifest_covers_files_in_directories(tmp_path: Path) -> None:
    """As sharded optimizers write them."""
    checkpoint = tmp_path / "checkpoint-2"
    (checkpoint / "optimizer_0").mkdir(parents=True)
    (checkpoint / "optimizer_0" / "part").write_text("moments")
    (checkpoint / "scaler.pt").write_text("scale")
    seal(checkpoint, {})
    assert is_whole(checkpoint)
    (checkpoint / "optimizer_0" / "part").write_text("moment5")
    assert not is_whole(checkpoint)
