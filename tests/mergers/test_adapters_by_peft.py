"""Adapters that PEFT wrote, merged on the fly, against what PEFT itself makes of them; where an environment with PEFT is at hand."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from entries import as_read, value_of
from safetensors.torch import load_file

from mergers.checkpoints.resolve import open_source

WITH_PEFT = Path(__file__).with_name("peft_adapters.py")


@pytest.fixture(scope="module")
def by_peft(tmp_path_factory):
    """Models, adapters and what PEFT merges of them, made in the environment that has PEFT."""
    home = os.environ.get("MERGELINE_MERGEKIT")
    if not home:
        pytest.skip("MERGELINE_MERGEKIT is unset: name the bin directory of an environment with mergekit, which brings PEFT")
    room = tmp_path_factory.mktemp("peft")
    env = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    subprocess.run([Path(home) / "python", WITH_PEFT, room], check=True, capture_output=True, env=env)
    return room


@pytest.mark.parametrize("case", ["patterns", "saved", "embedding", "tied", "tokens", "bias", "transposed", "llava", "stacked"])
def test_the_same_as_peft_merges(by_peft, case):
    room = by_peft / case
    more = f"+{room / 'second'}" if case == "stacked" else ""
    found = open_source(f"{room / 'base'}+{room / 'adapter'}{more}")
    merged = load_file(room / "merged" / "model.safetensors")
    base = load_file(room / "base" / "model.safetensors")
    assert found.tensors.keys() == merged.keys()
    changed = 0
    for name, tensor in merged.items():
        changed += not torch.equal(tensor, base[name])
        # PEFT adds in float32 too: a few roundings of sums of up to four products
        torch.testing.assert_close(as_read(found.tensors[name], 1 << 18).float(), tensor, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(value_of(found.tensors[name]).float(), tensor, rtol=1e-6, atol=1e-6)
    assert changed == sum(bool(entry.added or entry.rows or "adapter" in entry.path) for entry in found.tensors.values()) > 0
