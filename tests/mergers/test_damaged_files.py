"""Checkpoints that are damaged, or made to do harm: each refused by what it is, from its header alone, at once and in little memory."""

import json
import os

import pytest
import torch
from damaged import DAMAGED, EIGHT, HEADER_BOMBS, header_file, one
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import read_all
from safetensors import SafetensorError
from safetensors.torch import load_file

from foundation.errors import InputError
from mergers import read_checkpoint, resolve_checkpoint
from mergers.checkpoints.checkpoint import INDEX


def tensors():
    return {f"model.layers.{index}.w": torch.ones(4, 3) for index in range(4)}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_told_as_what_they_are(bench, kind):
    content, message = DAMAGED[kind]
    path = bench.save("x", tensors())
    (path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    if kind not in ("name twice", "unprintable name", "long name", "no tensors", "many dimensions"):  # what the library itself accepts
        with pytest.raises((SafetensorError, ValueError)):
            load_file(path / "model.safetensors")


def test_a_missing_shard_is_refused(bench):
    """Seed defect 3: a missing shard was a warning."""
    path = bench.save("x", tensors(), shards=3)
    (path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks 1 of 3 shards that its index names, e.g. model-00002-of-00003.safetensors"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "a\\b.safetensors", "..%2fx.safetensors", "x\0.safetensors", "x.bin", 7],
)
def test_an_index_may_only_name_plain_files(bench, name):
    path = bench.save("x", tensors(), shards=2)
    (path / INDEX).write_text(json.dumps({"weight_map": {"model.layers.0.w": name}}))
    with pytest.raises(InputError, match=r"only plain names like model-00001-of-00002.safetensors are followed"):
        read_checkpoint(path)


def test_links_that_leave_the_checkpoint_are_refused_but_for_the_hub_cache(bench):
    other = bench.save("other", tensors())
    path = bench.save("x", tensors())
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to(other / "model.safetensors")
    with pytest.raises(InputError, match=r"is a link to .*, outside its checkpoint"):
        read_checkpoint(path)
    snapshot = bench.save("hub/snapshots/abc", tensors())
    (bench.root / "hub" / "blobs").mkdir()
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).rename(bench.root / "hub" / "blobs" / name)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    assert len(read_checkpoint(snapshot).tensors) == 4
    alias = bench.root / "alias"
    alias.symlink_to(other)
    assert len(read_checkpoint(alias).tensors) == 4, "the directory itself may be a link"


def test_a_shard_may_be_neither_a_link_outwards_nor_a_pipe(bench):
    bench.save("other", tensors(), shards=2)
    path = bench.save("x", tensors(), shards=2)
    shard = path / "model-00002-of-00002.safetensors"
    for make, message in [
        (lambda: shard.symlink_to(bench.root / "other" / shard.name), r"model-00002-of-00002.safetensors is a link to .*, outside its"),
        (lambda: shard.symlink_to("nowhere"), "lacks 1 of 2 shards that its index names, e.g. model-00002-of-00002.safetensors"),
        (lambda: os.mkfifo(shard), "model-00002-of-00002.safetensors is not a regular file"),
        (shard.mkdir, "model-00002-of-00002.safetensors is not a regular file"),
    ]:
        shard.unlink()
        make()
        with pytest.raises(InputError, match=message):
            read_checkpoint(path)
        if shard.is_dir():
            shard.rmdir()


def test_header_bombs_neither_fill_the_memory_nor_take_time(bench):
    paths = []
    for kind, make in HEADER_BOMBS.items():
        paths.append(bench.save(kind, tensors()))
        (paths[-1] / "model.safetensors").write_bytes(header_file(make()))
    paths.append(bench.save("index", tensors(), shards=2))
    (paths[-1] / INDEX).write_text('{"weight_map":[' + "[]," * 10_000_000 + "[]]}")
    figures = read_all("mergers.checkpoints.checkpoint:read_checkpoint", "InputError", paths)
    for path, (seconds, megabytes, message) in zip(paths, figures, strict=True):
        assert str(path) in message
        assert megabytes < 200, message
        assert seconds < 5, message  # of computing: a tenth to a half on a fast processor; five is told apart from minutes


def test_an_index_that_lies_is_refused(bench):
    path = bench.save("x", tensors(), shards=2)
    index = json.loads((path / INDEX).read_text())

    def change(message, **changes):
        (path / INDEX).write_text(json.dumps(index | changes))
        with pytest.raises(InputError, match=message):
            read_checkpoint(path)

    first, second = sorted(set(index["weight_map"].values()))
    change(
        f"says that tensor 'model.layers.0.w' is in {second}, the files say it is in {first}",
        weight_map=index["weight_map"] | {"model.layers.0.w": second},
    )
    change("says that tensor 'ghost' is in .*, the files say it is in no file", weight_map=index["weight_map"] | {"ghost": first})
    change(
        "is in no file, the files say", weight_map={key: value for key, value in index["weight_map"].items() if key != "model.layers.0.w"}
    )
    change("gives total_size 1, the tensors have 192 bytes", metadata={"total_size": 1})
    change("has no weight_map", weight_map=[])
    (path / INDEX).write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        read_checkpoint(path)


def test_one_tensor_in_two_files_is_refused(bench):
    path = bench.save("x", tensors(), shards=2)
    bench.save("y", tensors())
    (path / "model-00002-of-00002.safetensors").write_bytes((bench.root / "y" / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="each may be in one file only"):
        read_checkpoint(path)


def test_two_models_in_one_directory_are_refused(bench):
    path = bench.save("x", tensors(), shards=2)
    bench.save("x", tensors())
    with pytest.raises(InputError, match="two models in one directory, and loaders differ in which they take"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["pytorch_model.bin"],
            r"holds only pickled weights \(pytorch_model.bin\); .* set allow_pickle: true, which reads them with weights_only=True. Or",
        ),
        (
            ["adapter_config.json", "adapter_model.safetensors"],
            "is a LoRA adapter, not a whole model; where a source is named, write it after",
        ),
        (["weights.safetensors"], "has neither model.safetensors nor model.safetensors.index.json, though it holds weights.safetensors"),
        (["notes.md"], "holds no weights"),
    ],
)
def test_directories_without_safetensors_are_told_what_to_do(bench, files, message):
    path = bench.root / "x"
    path.mkdir()
    for name in files:
        (path / name).write_text("{}")
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)
    with pytest.raises(InputError, match=message):
        resolve_checkpoint(str(path))


def test_a_checkpoint_that_needs_its_own_code_is_refused(bench):
    path = bench.save("x", tensors(), {"model_type": "odd", "auto_map": {"AutoModel": "modeling.Odd"}})
    with pytest.raises(InputError, match="such code is neither run nor copied"):
        read_checkpoint(path)


def test_no_length_of_a_header_is_mistaken_for_a_pickle_or_page(bench):
    """The first byte of a file is its header's length modulo 256: 0x80 opens a pickle too, 0x3C is '<'."""
    path = bench.save("x", tensors())
    header = json.dumps(one(), separators=(",", ":")).encode()
    for length in range(len(header), len(header) + 256):
        (path / "model.safetensors").write_bytes(header_file(header.ljust(length), EIGHT))
        assert list(read_checkpoint(path).tensors) == ["w"]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_bytes_change_a_file_reads_or_is_refused_by_name(bench, data):
    """Never a traceback, never another tensor's bytes: what is read lies inside the file."""
    path = bench.save("x", tensors())
    torch.save(tensors(), path / "x.ckpt")
    file = path / data.draw(st.sampled_from(["model.safetensors", "x.ckpt", "config.json"]))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))]))
    opened = path / "x.ckpt" if file.suffix == ".ckpt" else path
    refused, found = "", {}
    try:
        found = read_checkpoint(opened, allow_pickle=True).tensors
    except InputError as error:
        refused = str(error)
    assert bool(found) != (str(path) in refused)
    assert all(entry.start >= 0 and entry.start + entry.nbytes <= os.path.getsize(entry.path) for entry in found.values())
