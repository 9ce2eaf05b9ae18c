"""From what a user types to a checkpoint: directories, Trainer output, hub ids; and a typo that never reaches the network."""

import pytest
import torch

from foundation.errors import InputError
from mergers import resolve_checkpoint


def tensors():
    return {f"model.layers.{index}.w": torch.ones(4, 3) for index in range(4)}


def test_resolve_takes_directories_and_the_newest_complete_trainer_checkpoint(bench):
    path = bench.save("run/checkpoint-9", tensors())
    newest = bench.save("run/checkpoint-10", tensors())
    bench.save("run/checkpoint-final", tensors())  # seed defect 10: crashed the sort by number
    assert resolve_checkpoint(str(path)) == path
    assert resolve_checkpoint(str(bench.root / "run")) == newest
    (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-4])
    assert resolve_checkpoint(str(bench.root / "run")) == path, "a checkpoint cut short by a kill does not count"
    (path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no complete checkpoint; the newest: .*checkpoint-10.* is truncated"):
        resolve_checkpoint(str(bench.root / "run"))


@pytest.mark.parametrize(
    "text", ["./merged_stage1", "merged_stage1", "sub/merged_stage1", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c", "../nope"]
)
def test_a_mistyped_path_never_reaches_the_network(bench, monkeypatch, text):
    """Seed defect 7: './checkpoints/typo' was taken for a hub id and fetched."""
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("the network was asked"))
    monkeypatch.chdir(bench.root)
    (bench.root / "sub").mkdir()
    bench.save("merged_stage2", tensors())
    with pytest.raises(InputError, match="does not exist: there is no"):
        resolve_checkpoint(text)


def test_a_mistyped_path_is_answered_with_the_nearest(bench, monkeypatch):
    monkeypatch.chdir(bench.root)
    bench.save("runs/after_parity", tensors())
    with pytest.raises(InputError, match=r"did you mean runs/after_parity\?"):
        resolve_checkpoint("runs/after_partiy")
    with pytest.raises(InputError, match=r"there is no 'rums' in .*did you mean runs\?"):
        resolve_checkpoint("./rums/after_parity/checkpoint-3")
    with pytest.raises(InputError, match="is a file; name the checkpoint directory"):
        resolve_checkpoint("runs/after_parity/model.safetensors")


def test_a_hub_id_is_fetched_without_pickles_or_code(bench, monkeypatch):
    asked = {}
    path = bench.save("snapshot", tensors())
    monkeypatch.chdir(bench.root)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: asked.update(name=name, **options) or str(path))
    assert resolve_checkpoint("some-org/some.model@v1.0") == path
    assert (asked["name"], asked["revision"]) == ("some-org/some.model", "v1.0")
    assert set(asked["allow_patterns"]) == {"*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"}


def test_a_hub_id_that_cannot_be_fetched_is_an_input_error(bench, monkeypatch):
    monkeypatch.chdir(bench.root)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match=r"there is no local directory 'no-such-org/model', and fetching it from the Hugging Face hub failed: "
    ):
        resolve_checkpoint("no-such-org/model")
