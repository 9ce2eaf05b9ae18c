"""The benchmark's checkpoints: readable, reproducible, with task vectors of the size they say; and headers over holes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.checkpoints import SHAPES, Shape, make_headers, make_models, to_bfloat16
from benchmarks.contenders import plain_copy
from benchmarks.contest import run
from mergers import read_checkpoint

SMALL = Shape(hidden=32, layers=2, heads=4, kv_heads=2, intermediate=64, vocabulary=100)


def test_published_sizes() -> None:
    """Against the models' own totals: TinyLlama 1.1B, Llama 3 70B and 405B."""
    assert SHAPES["1.1b"].parameters == 1_100_048_384
    assert SHAPES["70b"].parameters == 70_553_706_496
    assert SHAPES["405b"].parameters == 405_853_388_800


def test_models_are_a_base_and_small_changes_to_it(tmp_path: Path) -> None:
    paths = make_models(tmp_path, SMALL)
    base, a, b = (load_file(path / "model.safetensors") for path in paths)
    assert base.keys() == dict(SMALL.tensors()).keys()
    name = "model.layers.1.mlp.up_proj.weight"
    assert base[name].dtype == torch.bfloat16
    assert base[name].float().std() == pytest.approx(0.02, rel=0.1)  # 2048 draws: the spread is known to 1.6 %
    assert (a[name].float() - base[name].float()).std() == pytest.approx(0.002, rel=0.1)
    assert not torch.equal(a[name], b[name])
    assert base["model.norm.weight"].float().mean() == pytest.approx(1, abs=0.02)


def test_bytes_depend_on_the_seed_only(tmp_path: Path) -> None:
    def content(directory: str, seed: int) -> list[bytes]:
        return [(path / "model.safetensors").read_bytes() for path in make_models(tmp_path / directory, SMALL, seed=seed)]

    first = content("first", 0)
    assert content("again", 0) == first
    assert content("other", 1) != first


def test_models_that_lie_there_are_not_made_again(tmp_path: Path) -> None:
    (path, *_) = make_models(tmp_path, SMALL)
    before = (path / "model.safetensors").stat().st_mtime_ns
    make_models(tmp_path, SMALL)
    assert (path / "model.safetensors").stat().st_mtime_ns == before
    make_models(tmp_path, SMALL, dtype="F32")
    assert load_file(path / "model.safetensors")["model.norm.weight"].dtype == torch.float32


def test_transformers_reads_them(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    path = make_models(tmp_path, SMALL)[1]
    model, problems = LlamaForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not any(problems.values())
    assert sum(weight.numel() for weight in model.parameters()) == SMALL.parameters
    assert LlamaConfig.from_pretrained(path).num_key_value_heads == 2


def test_rounding_to_bfloat16_is_torchs() -> None:
    values = np.random.default_rng(0).standard_normal(100_000, dtype=np.float32)
    values[:4] = np.array([0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001], dtype=np.uint32).view(np.float32)  # halfway, and beside it
    torchs = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(to_bfloat16(values), torchs)


def test_headers_of_a_large_model_take_no_disk(tmp_path: Path) -> None:
    (path,) = make_headers(tmp_path, SHAPES["70b"], ["base"])
    assert read_checkpoint(path).nbytes == 2 * SHAPES["70b"].parameters
    assert sum(file.stat().st_blocks * 512 for file in path.iterdir()) < 2_000_000
    assert json.loads((path / "config.json").read_text())["num_hidden_layers"] == 80


@pytest.mark.parametrize("threads", [1, 3])
def test_the_plain_copy_writes_every_byte(tmp_path: Path, threads: int) -> None:
    paths = make_models(tmp_path / "models", Shape(256, 2, 4, 2, 704, 8000), models=["a", "b"])
    for flush in (False, True):
        run(plain_copy(paths, tmp_path / f"copy-{flush}", threads, flush), paths)
        assert (tmp_path / f"copy-{flush}" / "model.safetensors").read_bytes() == (paths[1] / "model.safetensors").read_bytes()
