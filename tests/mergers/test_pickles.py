"""Pickled checkpoints: read in place where allowed, never run, and never looked into where not."""

import json
import os
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from small_models import bits
from torch import nn

from foundation.errors import InputError
from mergers.checkpoints import pickles
from mergers.checkpoints.checkpoint import PICKLES, read_checkpoint
from mergers.checkpoints.resolve import open_source, resolve_checkpoint

CONFIG = {"model_type": "llama"}


def tensors() -> dict[str, torch.Tensor]:
    """What a state dict may hold: many dtypes, a parameter, a part of a storage, a tensor under two names, a scalar, nothing."""
    generator = torch.Generator().manual_seed(0)
    large = torch.randn(12, 5, generator=generator)
    embedding = torch.randn(7, 4, generator=generator).bfloat16()
    return {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": embedding,
        "model.part": large[3:9],
        "model.half": torch.randn(3, 3, generator=generator).half(),
        "model.double": torch.randn(2, generator=generator).double(),
        "model.parameter": nn.Parameter(torch.randn(4, generator=generator)),
        "model.index": torch.arange(6),
        "model.mask": torch.tensor([True, False]),
        "model.scalar": torch.tensor(2.5),
        "model.empty": torch.empty(0, 3),
    }


def read_back(entry):
    """The bytes that an entry points at."""
    with open(entry.path, "rb") as file:
        file.seek(entry.start)
        return file.read(entry.nbytes)


def assert_holds(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].shape == tuple(tensor.shape)
        assert read_back(found[name]) == bits(tensor.detach()), name


def directory(root: Path, content: dict, name: str = PICKLES.single) -> Path:
    path = root / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    torch.save(content, path / name)
    return path


@pytest.mark.parametrize(
    "wrap", [dict, lambda state: {"state_dict": state, "epoch": 3, "optimizer_states": [{}]}, lambda state: {"model": state}]
)
def test_every_tensor_of_a_pickle_is_a_byte_range_of_it(tmp_path, wrap):
    path = directory(tmp_path, wrap(tensors()))
    found = read_checkpoint(path, allow_pickle=True)
    assert_holds(found.tensors, tensors())
    assert found.config == CONFIG
    assert found.files == (PICKLES.single,)
    dtypes = {name.rpartition(".")[2]: entry.dtype for name, entry in found.tensors.items() if name != "lm_head.weight"}
    assert dtypes == {
        "weight": "BF16", "part": "F32", "half": "F16", "double": "F64", "parameter": "F32", "index": "I64", "mask": "BOOL",
        "scalar": "F32", "empty": "F32",
    }  # fmt: skip


def test_older_releases_of_torch_note_the_places_under_fake_tensors_only(tmp_path, monkeypatch):
    path = directory(tmp_path, tensors())
    plain = read_checkpoint(path, allow_pickle=True).tensors
    place_of = pickles.place_of
    monkeypatch.setattr(pickles, "place_of", lambda tensor: place_of(tensor) if type(tensor).__name__ == "FakeTensor" else None)
    assert read_checkpoint(path, allow_pickle=True).tensors == plain


def test_shards_are_read_by_their_index(tmp_path):
    held = tensors()
    path = directory(tmp_path, {name: held[name] for name in sorted(held)[:4]}, "pytorch_model-00001-of-00002.bin")
    torch.save({name: held[name] for name in sorted(held)[4:]}, path / "pytorch_model-00002-of-00002.bin")
    weight_map = {name: f"pytorch_model-0000{1 if position < 4 else 2}-of-00002.bin" for position, name in enumerate(sorted(held))}
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in held.values())}, "weight_map": weight_map}
    (path / PICKLES.index).write_text(json.dumps(index))
    assert_holds(open_source(str(path), allow_pickle=True).tensors, held)
    for name, message in [("../x.bin", "only plain names"), ("model-00001-of-00002.safetensors", "only plain names")]:
        (path / PICKLES.index).write_text(json.dumps({"weight_map": weight_map | {"lm_head.weight": name}}))
        with pytest.raises(InputError, match=message):
            read_checkpoint(path, allow_pickle=True)
    (path / PICKLES.index).write_text(json.dumps(index))
    (path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(InputError, match="lacks 1 of 2 shards that its index names"):
        read_checkpoint(path, allow_pickle=True)


def test_a_lightning_checkpoint_is_a_source_of_its_own(tmp_path):
    torch.save({"state_dict": tensors(), "hyper_parameters": {"lr": 1e-3}}, tmp_path / "last.ckpt")
    found = open_source(str(tmp_path / "last.ckpt"), allow_pickle=True)
    assert_holds(found.tensors, tensors())
    assert found.config == {}
    assert resolve_checkpoint(str(tmp_path / "last.ckpt")) == tmp_path / "last.ckpt"
    with pytest.raises(InputError, match=r"has neither pytorch_model.bin nor .*, though it holds last.ckpt; name that file itself"):
        open_source(str(tmp_path), allow_pickle=True)


def test_safetensors_are_preferred_and_pickles_beside_them_left_alone(tmp_path):
    from safetensors.torch import save_file

    path = directory(tmp_path, {"w": Evil(tmp_path / "touched")})
    save_file({"w": torch.ones(2)}, path / "model.safetensors")
    assert open_source(str(path), allow_pickle=True).files == ("model.safetensors",)
    assert not (tmp_path / "touched").exists()


def test_pickles_are_fetched_from_the_hub_only_if_allowed_and_needed(tmp_path, monkeypatch):
    path = directory(tmp_path, tensors())
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: asked.append(options["allow_patterns"]) or str(path))
    with pytest.raises(InputError, match="holds only pickled weights"):
        open_source("some-org/old-model")
    assert_holds(open_source("some-org/old-model", allow_pickle=True).tensors, tensors())
    assert [any(pattern.endswith(".bin") for pattern in patterns) for patterns in asked] == [False, False, True]


# --- what must not run ---


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


EVIL = {
    "in place of the state dict": lambda evil: evil,
    "inside the state dict": lambda evil: {"w": torch.ones(2), "x": evil},
    "beside the state dict": lambda evil: {"state_dict": {"w": torch.ones(2)}, "callbacks": evil},
    "inside a wrapped state dict": lambda evil: {"state_dict": {"w": torch.ones(2), "x": evil}},
}


@pytest.mark.parametrize("name", [PICKLES.single, "last.ckpt", "weights.pt"])
@pytest.mark.parametrize("place", EVIL)
def test_code_in_a_pickle_never_runs(tmp_path, name, place):
    touched = tmp_path / "touched"
    path = directory(tmp_path, EVIL[place](Evil(touched)), name)
    path = path if name == PICKLES.single else path / name
    with pytest.raises(InputError, match=r"allow_pickle: true, which reads them with weights_only=True"):
        open_source(str(path))
    with pytest.raises(InputError, match=r"holds an object of (posix|os).system, not only tensors; to load it would run that class's code"):
        open_source(str(path), allow_pickle=True)
    assert not touched.exists()
    torch.load(path / name if path.is_dir() else path, weights_only=False)
    assert touched.exists(), "the payload must work to prove anything"


def test_a_bare_pickle_is_refused_before_it_is_looked_into(tmp_path):
    touched = tmp_path / "touched"
    (tmp_path / "last.ckpt").write_bytes(pickle.dumps({"state_dict": Evil(touched)}))
    torch.save({"w": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("last.ckpt", "old.pt"):
        with pytest.raises(InputError, match=r"in the format of before torch 1.6, .* write it again: torch.save\(torch.load"):
            open_source(str(tmp_path / name), allow_pickle=True)
    assert not touched.exists()


def test_without_the_switch_pickles_are_refused_before_torch_is_imported(tmp_path):
    path = directory(tmp_path, tensors())
    torch.save(tensors(), tmp_path / "last.ckpt")
    code = (
        "import sys\nfrom mergers.checkpoints.resolve import open_source\nfrom foundation.errors import InputError\n"
        "for text in sys.argv[1:]:\n    try:\n        open_source(text)\n    except InputError as error:\n        print(error)\n"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code, path, tmp_path / "last.ckpt"], capture_output=True, text=True, check=True)
    first, second, torch_loaded = ran.stdout.splitlines()
    assert "holds only pickled weights (pytorch_model.bin)" in first
    assert "last.ckpt holds pickled weights; pickles can run code, so they are read only where you allow it" in second
    assert torch_loaded == "False"


def test_a_config_object_in_a_lightning_checkpoint_is_named(tmp_path):
    torch.save({"state_dict": tensors(), "hyper_parameters": Path("x")}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"holds an object of pathlib\S*, not only tensors; .* keep its weights alone: torch.save"):
        open_source(str(tmp_path / "last.ckpt"), allow_pickle=True)


# --- what is damaged, or no state dict ---


def test_tensors_that_are_no_byte_range_are_named(tmp_path):
    for content, message in [
        ({"a": torch.ones(2), "turned": torch.arange(6.0).view(2, 3).T}, r"tensor 'turned' \(3, 2\) lies in memory with strides \(1, 3\)"),
        ({"sparse": torch.eye(3).to_sparse()}, r"tensor 'sparse' \(torch.sparse_coo\) has no bytes of its own"),
        ({"odd": torch.ones(2, dtype=torch.complex128)}, r"tensor 'odd' has dtype torch.complex128, which cannot be read"),
        ({"bad\0name": torch.ones(2)}, "is empty, longer than 512 characters or not printable"),
        ({"w": torch.ones(2), "step": 3}, r"'step' is int, not a tensor; expected name -> tensor, or a dict that holds such a table under"),
        ({"state_dict": {"w": torch.ones(2), "step": 3}}, r"under 'state_dict', 'step' is int, not a tensor"),
        ([torch.ones(2)], "holds list without named tensors; save a state dict"),
        ({}, "holds dict without named tensors"),
    ]:
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(InputError, match=message):
            open_source(str(tmp_path / "x.pt"), allow_pickle=True)


def rewrite(path: Path, change) -> None:
    """Write an archive again, each record as `change` has it: (name, bytes, compression) or None."""
    with zipfile.ZipFile(path) as archive:
        records = [(record.filename, archive.read(record)) for record in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records:
            archive.writestr(name, *change(name, data))


def short(name, data):
    return (data[:-4] if name.endswith("/data/0") else data, zipfile.ZIP_STORED)


def test_damaged_archives_are_told_as_what_they_are(tmp_path):
    path = tmp_path / "x.ckpt"
    torch.save({"w": torch.ones(64)}, path)
    whole = path.read_bytes()
    stored, squeezed = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
    for make, message in [
        (lambda: path.write_bytes(b""), r"is empty \(0 bytes\)"),
        (lambda: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "is a git-lfs pointer"),
        (lambda: path.write_bytes(b"<!DOCTYPE html><html></html>"), "is a web page"),
        (lambda: path.write_bytes(b"no weights at all"), "is not a file that torch.save wrote"),
        (lambda: path.write_bytes(whole[: len(whole) // 2]), "is truncated or damaged"),
        (lambda: rewrite(path, lambda name, data: (data, squeezed)), "is compressed, which torch.save never does"),
        (
            lambda: rewrite(path, lambda name, data: (b"big" if name.endswith("/byteorder") else data, stored)),
            "was written on a machine of the other byte order",
        ),
        (lambda: rewrite(path, short), r"tensor 'w' \(64,\) F32 needs bytes .*, its record ends at"),
        (lambda: rewrite(path, lambda name, data: (b"\0" * len(data) if "pkl" in name else data, stored)), "cannot be read as tensors"),
    ]:
        path.write_bytes(whole)
        make()
        started = time.thread_time()
        with pytest.raises(InputError, match=message) as caught:
            open_source(str(path), allow_pickle=True)
        assert str(path) in str(caught.value)
        assert time.thread_time() - started < 1, "refused at once"


def test_a_bomb_in_place_of_the_table_is_not_unpacked(tmp_path):
    path = tmp_path / "x.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/version", b"3")
        archive.writestr("x/data.pkl", b"\0" * (100 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="is compressed"):
        open_source(str(path), allow_pickle=True)
