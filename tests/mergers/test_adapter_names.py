"""How adapters are named: after their base and a plus, alone, on the hub, in a Trainer's directory."""

import pytest
import torch
from entries import value_of
from safetensors.torch import load_file
from small_adapters import HIDDEN, Q, Room, pair

from foundation.errors import InputError
from mergers.checkpoints.resolve import open_source, resolve_checkpoint


@pytest.fixture
def room(bench):
    return Room(bench)


def test_adapters_are_written_after_a_plus_or_alone(room, monkeypatch):
    first, second = room.adapter(pair(Q, HIDDEN, HIDDEN), "first"), room.adapter(pair(Q, HIDDEN, HIDDEN, seed=55), "second+b")
    monkeypatch.chdir(room.bench.root)
    alone = open_source("first")
    assert alone == open_source("base+first") == open_source(f"{room.path}+{first}")
    assert len(alone.tensors[f"{Q}.weight"].added) == 1
    both = open_source("base+first+second+b").tensors[f"{Q}.weight"]
    assert [matrix.up.path for matrix in both.added] == [str(path / "adapter_model.safetensors") for path in (first, second)]
    assert open_source("first+second+b").tensors[f"{Q}.weight"] == both
    assert open_source("second+b").path == room.path
    with pytest.raises(InputError, match=r"checkpoint 'bass' does not exist: .*did you mean base\?"):
        open_source("bass+first")
    with pytest.raises(InputError, match=r"checkpoint 'frist' does not exist: .*did you mean first\?"):
        open_source("base+frist")
    with pytest.raises(InputError, match=r"'base' stands after a \+, but .* is no LoRA adapter"):
        open_source("base+base")
    with pytest.raises(InputError, match=r"is a LoRA adapter, not a whole model; where a source is named, write it after its base"):
        resolve_checkpoint("first")


def test_bases_and_adapters_may_lie_on_the_hub(room, monkeypatch):
    monkeypatch.chdir(room.bench.root)
    places = {"some-org/base": room.path, "some-org/lora": room.adapter(pair(Q, HIDDEN, HIDDEN), "first", base_model_name_or_path=None)}
    asked = []

    def download(name, revision, **_):
        asked.append((name, revision))
        return str(places[name])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = open_source("some-org/base@v1+some-org/lora@v2")
    assert asked == [("some-org/base", "v1"), ("some-org/lora", "v2")]
    room.adapter(pair(Q, HIDDEN, HIDDEN), "first", base_model_name_or_path="some-org/base", revision="v3")
    assert open_source("some-org/lora") == found == open_source("first")
    assert asked[2:] == [("some-org/lora", None), ("some-org/base", "v3"), ("some-org/base", "v3")]


def test_a_trainer_s_newest_adapter_is_taken(room):
    for step in (5, 10):
        room.bench.root.joinpath("run").mkdir(exist_ok=True)
        room.adapter(pair(Q, HIDDEN, HIDDEN, seed=step), f"run/checkpoint-{step}")
    (matrix,) = open_source(str(room.bench.root / "run")).tensors[f"{Q}.weight"].added
    assert "checkpoint-10" in matrix.up.path
    file = room.bench.root / "run" / "checkpoint-10" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    (matrix,) = open_source(str(room.bench.root / "run")).tensors[f"{Q}.weight"].added
    assert "checkpoint-5" in matrix.up.path, "one cut short by a kill does not count"


def test_an_adapter_must_name_a_base_that_is_a_model(room):
    path = room.adapter(pair(Q, HIDDEN, HIDDEN), base_model_name_or_path=None)
    with pytest.raises(InputError, match=r"does not name the base model; write the source as base\+"):
        open_source(str(path))
    path = room.adapter(pair(Q, HIDDEN, HIDDEN), base_model_name_or_path=str(path))
    with pytest.raises(InputError, match=r"itself an adapter; write all of them, the model first"):
        open_source(str(path))
    path = room.adapter(pair(Q, HIDDEN, HIDDEN), base_model_name_or_path="./nowhere")
    with pytest.raises(InputError, match=r"'./nowhere' does not exist"):
        open_source(str(path))


def test_a_pickled_adapter_needs_the_switch(room):
    path = room.adapter(pair(Q, HIDDEN, HIDDEN))
    torch.save(load_file(path / "adapter_model.safetensors"), path / "adapter_model.bin")
    plain = value_of(open_source(str(path)).tensors[f"{Q}.weight"])
    (path / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"adapter_model.bin only; pickles can run code, .* allow_pickle: true"):
        open_source(str(path))
    assert torch.equal(value_of(open_source(str(path), allow_pickle=True).tensors[f"{Q}.weight"]), plain)
