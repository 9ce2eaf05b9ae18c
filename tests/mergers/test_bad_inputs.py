"""Every checkpoint and request that must be refused, by its message: what, where, what to do. Decided from headers alone."""

import json
import struct

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from foundation.errors import ConfigError, InputError
from mergers import WeightedAverage, WiseFT, execute, plan_merge, read_checkpoint, resolve_checkpoint
from mergers.checkpoint import INDEX


def tensors(**changed):
    found = {f"model.layers.{index}.w": torch.ones(4, 3) for index in range(4)}
    found |= {name.replace("__", "."): tensor for name, tensor in changed.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def plan(bench, a, b, merger=None, **options):
    return plan_merge(merger or WeightedAverage(), bench.sources(a=a, b=b), bench.root / "out", **options)


# --- sources that do not fit one another ---


def test_missing_tensors_are_refused(bench):
    """Seed defect 2: tensors that one source lacked were dropped, and the model loaded them at random."""
    a, b = bench.save("a", tensors()), bench.save("b", tensors(model__layers__2__w=None))
    with pytest.raises(
        InputError,
        match=r"source 'b' lacks 1 of 4 tensors, e\.g\. 'model\.layers\.2\.w' \(which 'a' holds\); .* partial: true to merge",
    ):
        plan(bench, a, b)
    with pytest.raises(InputError, match=r"source 'a' lacks 1 of 4 tensors"):
        plan(bench, b, a)  # the same as an extra tensor of the second source


def test_partial_merges_over_the_holders_and_says_so(bench):
    full, part = tensors(extra=torch.full((2,), 7.0)), {name: tensor * 3 for name, tensor in tensors(model__layers__2__w=None).items()}
    made = plan(bench, bench.save("a", full), bench.save("b", part), partial=True)
    text = "\n".join(made.describe())
    assert "2 of 5 tensors are merged over the sources that hold them, weights scaled to sum to 1, e.g. 'extra' over 'a'" in text
    execute(made)
    merged = bench.load()
    assert torch.equal(merged["extra"], full["extra"])
    assert torch.equal(merged["model.layers.2.w"], full["model.layers.2.w"])
    assert torch.equal(merged["model.layers.1.w"], torch.full((4, 3), 2.0))


def test_models_without_a_common_name_are_refused_even_as_partial(bench):
    a, b = bench.save("a", tensors()), bench.save("b", {"other.w": torch.ones(2)})
    with pytest.raises(InputError, match=r"source 'a' lacks 1 of 5 tensors, e\.g\. 'other\.w' \(which 'b' holds\); it has none in common"):
        plan(bench, a, b, partial=True)


@pytest.mark.parametrize("shape", [(1, 3), (4, 1), (3, 4), (12,), (1,), (), (4, 3, 1)])
def test_shapes_that_differ_are_refused_broadcastable_or_not(bench, shape):
    """Seed defect 5: (2, 3) + (1, 3) was broadcast without a word."""
    a, b = bench.save("a", tensors()), bench.save("b", tensors(model__layers__1__w=torch.ones(shape)))
    with pytest.raises(InputError, match=r"tensor 'model\.layers\.1\.w' has shape \(4, 3\) in 'a' and .* in 'b'; shapes must be equal"):
        plan(bench, a, b)


def test_dtypes_that_do_not_mix_are_refused(bench):
    a, b = bench.save("a", tensors()), bench.save("b", tensors(model__layers__1__w=torch.ones(4, 3, dtype=torch.int32)))
    with pytest.raises(
        InputError, match=r"tensor 'model\.layers\.1\.w' has dtype F32 in 'a' and I32 in 'b'; only F64, F32, F16, BF16 may be mixed"
    ):
        plan(bench, a, b)


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ({"model_type": "llama"}, {"model_type": "qwen2"}, "model_type is 'llama' in 'a', 'qwen2' in 'b'"),
        ({"num_attention_heads": 8}, {"num_attention_heads": 16}, "num_attention_heads is 8 in 'a', 16 in 'b'"),
        ({"text_config": {"head_dim": 8}}, {"text_config": {"head_dim": 4}}, "text_config.head_dim is 8 in 'a', 4 in 'b'"),
    ],
)
def test_other_architectures_are_refused(bench, first, second, named):
    """Seed defect 11: nothing checked that the checkpoints descend from one base, and equal shapes do not prove it."""
    with pytest.raises(InputError, match=f"not of one architecture: .*{named}"):
        plan(bench, bench.save("a", tensors(), first), bench.save("b", tensors(), second))


def test_other_differences_of_the_configs_are_noted(bench):
    a, b = (
        bench.save("a", tensors(), {"rope_theta": 1e4, "use_cache": True}),
        bench.save("b", tensors(), {"rope_theta": 5e5, "use_cache": False}),
    )
    assert plan(bench, a, b).notes == ("configs differ: rope_theta is 10000.0 in 'a', 500000.0 in 'b'",)


def test_no_config_anywhere_is_refused(bench):
    paths = [bench.save(name, tensors()) for name in "ab"]
    for path in paths:
        (path / "config.json").unlink()
    with pytest.raises(InputError, match=r"none of the sources \(a, b\) has a config.json"):
        plan(bench, *paths)


# --- requests ---


def test_requests_that_cannot_be_honoured(bench):
    a, b = bench.save("a", tensors()), bench.save("b", tensors())
    with pytest.raises(ConfigError, match="3 weights for 2 checkpoints"):
        plan(bench, a, b, WeightedAverage((0.2, 0.3, 0.5)))
    with pytest.raises(ConfigError, match="exactly two sources named previous, tuned"):
        plan(bench, a, b, WiseFT())
    with pytest.raises(ConfigError, match="files_from: unknown source 'c'"):
        plan(bench, a, b, files_from="c")
    with pytest.raises(ConfigError, match="max_shard_size is 0"):
        plan(bench, a, b, max_shard_size=0)
    twice = bench.sources(a=a) + bench.sources(a=b)
    with pytest.raises(ConfigError, match="2 sources are named 'a'; give each its own name"):
        plan_merge(WeightedAverage(), twice, bench.root / "out")


def test_outputs_that_would_overwrite_something(bench):
    a, b = bench.save("a", tensors()), bench.save("b", tensors())
    sources = bench.sources(a=a, b=b)
    for output, message in [
        (a, "lies at, above or inside source 'a'"),
        (a / "merged", "lies at, above or inside source 'a'"),
        (bench.root, "lies at, above or inside source 'a'"),
        (
            bench.save("full", tensors()),
            r"exists and is not empty \(it holds config.json\); choose another output, or allow it to be replaced",
        ),
    ]:
        with pytest.raises(ConfigError, match=message):
            plan_merge(WeightedAverage(), sources, output)
    for replaced in (a, bench.root):
        with pytest.raises(ConfigError, match="lies at, above or inside"):
            plan_merge(WeightedAverage(), sources, replaced, replace=True)
    home = bench.root / "home"
    home.mkdir()
    plan_merge(WeightedAverage(), sources, home)  # empty: nothing to lose
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="does not look like a checkpoint"):
        plan_merge(WeightedAverage(), sources, home, replace=True)
    with pytest.raises(ConfigError, match="is a file; choose a directory"):
        plan_merge(WeightedAverage(), sources, home / "thesis.tex")
    plan_merge(WeightedAverage(), sources, bench.root / "full", replace=True)


# --- damaged files ---


def header_file(header, data=b"", pad=0):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) + pad) + text + data


def one(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


EIGHT = b"\0" * 8
DAMAGED = {
    "empty": (b"", r"is empty \(0 bytes\); copy or download it again"),
    "git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 99\n",
        "is a git-lfs pointer, .*run `git lfs pull`",
    ),
    "web page": (b"<!DOCTYPE html><html><body>404</body></html>", r"is a web page \(HTML\), .*download it again"),
    "pickle": (b"\x80\x02}q\x00." + EIGHT, "is a pickle that is named .safetensors; pickles can run code and are not read"),
    "zip of pickles": (b"PK\x03\x04" + EIGHT, "is a pickle that is named .safetensors"),
    "few bytes": (b"abc", "has 3 bytes, too few"),
    "cut in its header": (header_file(one(), EIGHT)[:20], "is truncated: its header alone needs"),
    "cut in its data": (header_file(one(), EIGHT)[:-1], "is truncated: its header describes .* bytes, the file has"),
    "longer than it says": (header_file(one(), EIGHT + b"x"), "has 1 bytes more than its header describes"),
    "header bomb": (header_file({"__metadata__": {"x": ""}}, pad=1 << 30), "its header claims .* bytes, more than 33554432"),
    "not JSON": (header_file(b"not json at all", EIGHT), "its header is not JSON"),
    "nested without end": (header_file(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "its header is not JSON"),
    "a list": (header_file(b"[1, 2]  ", EIGHT), "its header is not a JSON object"),
    "name twice": (
        header_file(b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', EIGHT),
        "'w' stands twice in its header",
    ),
    "unprintable name": (header_file({"a\x00b": one()["w"]}, EIGHT), "is empty, longer than 512 characters or not printable"),
    "long name": (header_file({"a" * 513: one()["w"]}, EIGHT), "is empty, longer than 512 characters"),
    "unknown dtype": (header_file(one(dtype="F31"), EIGHT), "tensor 'w' has dtype 'F31', which cannot be read; known: F64"),
    "unhashable dtype": (header_file(one(dtype=["F32"]), EIGHT), "tensor 'w' has dtype"),
    "negative shape": (header_file(one(shape=(-2,)), EIGHT), "a shape or offset that is not a whole number >= 0"),
    "true as a number": (header_file(one(shape=(True,), offsets=(0, 4)), b"\0" * 4), "a shape or offset that is not a whole number"),
    "wrong size": (header_file(one(shape=(3,)), EIGHT), "needs 12 bytes, the header gives it 8"),
    "gap": (header_file(one(offsets=(8, 16)), EIGHT + EIGHT), "the header has a gap or an overlap"),
    "overlap": (header_file({"a": one()["w"], "b": one(offsets=(4, 12))["w"]}, EIGHT + b"\0" * 4), "the header has a gap or an overlap"),
    "no offsets": (header_file({"w": {"dtype": "F32", "shape": [2]}}, EIGHT), "no well-formed dtype, shape and data_offsets"),
    "no tensors": (header_file({}), "holds no tensors"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_told_as_what_they_are(bench, kind):
    content, message = DAMAGED[kind]
    path = bench.save("x", tensors())
    (path / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    if kind not in ("name twice", "unprintable name", "long name", "no tensors"):  # what the library itself accepts
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
            r"holds only pickled weights \(pytorch_model.bin\); pickles can run code and are not read. Load the model with transformers",
        ),
        (["adapter_config.json", "adapter_model.safetensors"], "is a LoRA adapter, not a whole model; merge it into its base first"),
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
