"""The malformed corpus given to the commands: each refused by its name, with exit code 3, before Ray or torch would start, and at once."""

import json
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import Command, changed, ended, everything_in
from damaged import DAMAGED, EIGHT, HEADER_BOMBS, header_file, one
from safetensors.torch import save_file

INDEX = "model.safetensors.index.json"
BASE = "{pretrain: digits_llava, settings: {tower_steps: 3, language_steps: 3, most_samples: 40, threads: 1}}"
SECONDS = 3.0
"""Of computing, at most, for one refusal. The promise is one second on a machine that has nothing else to do; see the printed figure."""


def whole(directory: Path) -> Path:
    """A checkpoint of two shards, small and right."""
    directory.mkdir()
    weight_map = {}
    for number in (1, 2):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file({f"layer.{number}.weight": torch.ones(4, 3)}, directory / name, metadata={"format": "pt"})
        weight_map[f"layer.{number}.weight"] = name
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": 96}, "weight_map": weight_map}))
    (directory / "config.json").write_text('{"model_type": "llama"}')
    return directory


def shard(content: Callable[[], bytes]) -> Callable[[Path], None]:
    """Puts this in place of the first shard."""
    return lambda path: (path / "model-00001-of-00002.safetensors").write_bytes(content()) and None


def index(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Changes the index."""

    def spoil(path: Path) -> None:
        content = json.loads((path / INDEX).read_text())
        change(content)
        (path / INDEX).write_text(json.dumps(content))

    return spoil


def names(name: object) -> Callable[[Path], None]:
    """Makes the index name this file."""
    return index(lambda content: content["weight_map"].update({"layer.1.weight": name}))


def linked(path: Path) -> None:
    outside = path.parent / "outside.safetensors"
    outside.write_bytes(header_file(one(), EIGHT))
    (path / "model-00001-of-00002.safetensors").unlink()
    (path / "model-00001-of-00002.safetensors").symlink_to(outside)


CORPUS: dict[str, Callable[[Path], None]] = {
    **{kind: shard(lambda content=content: content) for kind, (content, _) in DAMAGED.items() if kind != "no tensors"},  # type: ignore[misc]
    **{kind: shard(make) for kind, make in ((kind, lambda make=make: header_file(make())) for kind, make in HEADER_BOMBS.items())},  # type: ignore[misc]
    "a header length of all ones": shard(lambda: struct.pack("<Q", 2**64 - 1) + EIGHT),
    "a tensor called ../../etc/passwd": shard(lambda: header_file({"../../etc/passwd": one()["w"]}, EIGHT)),
    "a shard that is not there": lambda path: (path / "model-00002-of-00002.safetensors").unlink(),
    "a link out of the checkpoint": linked,
    **{
        f"an index that names {name!r}": names(name)
        for name in (
            "../outside.safetensors",
            "/etc/x.safetensors",
            "a\\b.safetensors",
            "..%2fx.safetensors",
            "x\0.safetensors",
            "x.bin",
            7,
        )
    },
    "an index with a tensor in another shard": names("model-00002-of-00002.safetensors"),
    "an index with a tensor that is not there": index(
        lambda content: content["weight_map"].update(ghost="model-00001-of-00002.safetensors")
    ),
    "an index that leaves a tensor out": index(lambda content: content["weight_map"].pop("layer.1.weight")),
    "an index with another total": index(lambda content: content["metadata"].update(total_size=97)),
    "an index without a table": index(lambda content: content.update(weight_map=[])),
    "an index that is cut": lambda path: (path / INDEX).write_text((path / INDEX).read_text()[:40]) and None,
    "an index of ten million lists": lambda path: (path / INDEX).write_text('{"weight_map":[' + "[]," * 10_000_000 + "[]]}") and None,
    "a config that is cut": lambda path: (path / "config.json").write_text('{"model_type": ') and None,
    "a config that is a list": lambda path: (path / "config.json").write_text("[]") and None,
    "a config nested without end": lambda path: (path / "config.json").write_text("[" * 100_000) and None,
    "a config with code of its own": lambda path: (path / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}') and None,
    "only pickles": lambda path: (
        [(path / name).rename(path / "pytorch_model.bin") for name in sorted(p.name for p in path.glob("*.s*s"))]
        and (path / INDEX).unlink()
    ),
}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it would fail: nothing may get that far
    return lambda *arguments: ended(capsys, *arguments)


def test_the_malformed_corpus_is_refused_by_name_at_once(command: Command, tmp_path: Path) -> None:
    good = whole(tmp_path / "good")
    (tmp_path / "e.yaml").write_text(changed(BASE, "hurt"))
    asked = {"validate": ("validate", "e.yaml"), "merge": ("merge", "--checkpoints", good, "hurt", "--output", "out")}
    assert command("validate", "e.yaml").code == 3
    longest = (0.0, "")
    for kind, spoil in CORPUS.items():
        shutil.copytree(good, tmp_path / "hurt")
        spoil(tmp_path / "hurt")
        for name, arguments in asked.items():
            started = time.process_time()
            told = command(*arguments)
            longest = max(longest, (time.process_time() - started, f"{name}: {kind}"))
            if kind == "a tensor called ../../etc/passwd":  # printable, so a name like any other; no file is ever called after a tensor
                assert "/etc/passwd" in told.err, (kind, name, told.said)
            assert told.code == 3, (kind, name, told.said)
            assert "hurt" in told.err, (kind, name)
            assert "Traceback" not in told.err, (kind, name)
            assert told.out == "", (kind, name)
        assert sorted(path.name for path in tmp_path.iterdir() if "outside" not in path.name) == ["e.yaml", "good", "hurt"]
        shutil.rmtree(tmp_path / "hurt")
    print(f"malformed corpus: {len(CORPUS)} kinds, {2 * len(CORPUS)} refusals; the longest took {longest[0]:.2f} s ({longest[1]})")
    assert longest[0] < SECONDS


@pytest.mark.slow
def test_a_refusal_takes_a_second_with_everything_that_a_command_starts(tmp_path: Path) -> None:
    """A process of its own, from the shell and back, which has neither Ray nor torch loaded at the end."""
    (tmp_path / "e.yaml").write_text(changed(BASE, str(shutil.copytree(whole(tmp_path / "good"), tmp_path / "hurt"))))
    (tmp_path / "hurt" / "model-00001-of-00002.safetensors").write_bytes(DAMAGED["git-lfs pointer"][0])
    before = everything_in(tmp_path)
    code = (
        "import sys, pipeline.cli\nsys.argv = ['mergeline', 'validate', 'e.yaml']\ntry: pipeline.cli.main()\n"
        "finally: print(sorted({'ray', 'torch', 'mlflow', 'transformers'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    print(f"refused in {seconds:.2f} s, start of Python included")
    assert done.returncode == 3, done.stderr
    assert "git lfs pull" in done.stderr
    assert done.stdout.strip() == "[]"
    assert everything_in(tmp_path) == before
    assert seconds < 5
