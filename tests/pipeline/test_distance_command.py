"""`distance`: what it prints, writes and logs for small checkpoints, and what it refuses."""

import csv
import io
import json
from pathlib import Path

import matplotlib.image
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from foundation.errors import ConfigError, InputError
from pipeline.command.distance import MOST_ROWS, measure_distance

PARTS = ("self_attn.q_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight")


def save(path: Path, seed: int, layers: int = 2, experts: tuple[str, ...] = ()) -> str:
    """A small model: layers, an embedding, a head."""
    generator = torch.Generator().manual_seed(seed)
    names = [f"model.layers.{layer}.{part}" for layer in range(layers) for part in PARTS]
    if experts:
        names = [name.replace("mlp.", f"mlp.{expert}.") for name in names for expert in experts]
    path.mkdir(parents=True)
    tensors = {
        name: torch.randn(6, 5, generator=generator) for name in dict.fromkeys([*names, "model.embed_tokens.weight", "lm_head.weight"])
    }
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return str(path)


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    return [save(tmp_path / "models" / name, seed) for seed, name in enumerate(("first", "second", "third"))]


def told(*arguments: object, **options: object) -> str:
    """What the command prints."""
    text = io.StringIO()
    measure_distance(*arguments, console=Console(file=text, width=160), **options)  # type: ignore[arg-type]
    return text.getvalue()


def test_two_checkpoints_are_shown_by_group_and_in_all(models):
    text = told(models[:2], None, None)
    lines = [line.split() for line in text.splitlines()]
    assert text.startswith("first and second: weights; signs: share that differ; TSSD: SSD of the largest 0.2")
    assert [" ".join(line[:-7]) for line in lines[2:]] == [
        "embeddings", "head", "layers.0 attention", "layers.0 mlp", "layers.0 norm", "layers.1 attention", "layers.1 mlp", "layers.1 norm",
        "all",
    ]  # fmt: skip
    assert lines[-1][1] == str(30 * 8)


def test_the_files_hold_what_was_measured(models, tmp_path):
    output = tmp_path / "out"
    text = told(models, None, output)
    assert f"tables and heat maps: {output}" in text
    assert sorted(path.name for path in output.iterdir()) == [
        "distance-first-second.png", "distance-first-third.png", "distance-second-third.png", "distance.csv", "distance.json",
    ]  # fmt: skip
    data = json.loads((output / "distance.json").read_text())
    assert [(pair["first"], pair["second"]) for pair in data["pairs"]] == [("first", "second"), ("first", "third"), ("second", "third")]
    rows = list(csv.DictReader((output / "distance.csv").open()))
    for pair in data["pairs"]:
        own = [row for row in rows if (row["first"], row["second"]) == (pair["first"], pair["second"])]
        assert [row["scope"] for row in own] == ["total"] + ["group"] * 8 + ["tensor"] * 8
        assert float(own[0]["cosine"]) == pair["total"]["cosine"]
        assert {row["name"]: float(row["ssd"]) for row in own if row["scope"] == "group"} == {
            group["group"]: group["ssd"] for group in pair["groups"]
        }
        assert {row["name"]: int(row["elements"]) for row in own if row["scope"] == "tensor"} == dict.fromkeys(pair["tensors"], 30)
    assert str(tmp_path) not in (output / "distance.json").read_text(), "no path of this machine"
    picture = matplotlib.image.imread(output / "distance-first-second.png")
    assert len({tuple(color) for color in picture.reshape(-1, picture.shape[-1])[::7]}) > 50, "cells of many colours"
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    told(models, None, output)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_task_vectors_from_a_base(models, tmp_path):
    text = told(models[:2], models[2], tmp_path / "out")
    assert text.startswith("first and second: task vectors from base;")
    total = json.loads((tmp_path / "out" / "distance.json").read_text())["pairs"][0]["total"]
    assert 0.2 < total["cosine"] < 0.8, "independent a, b, c: cos(a - c, b - c) is about one half"
    assert (tmp_path / "out" / "distance.png").exists()


def test_experts_inside_one_checkpoint(tmp_path):
    moe = save(tmp_path / "moe", 0, experts=("v", "l"))
    text = told([moe], None, None, experts=["v", "l"])
    assert text.startswith("v and l: weights")
    assert "layers.1 mlp" in text
    assert "attention" not in text, "all experts share it"
    assert "note: 6 tensors are left out: they are shared by all experts" in text


def test_many_groups_are_cut_to_those_that_are_furthest_apart(tmp_path):
    deep = [save(tmp_path / name, seed, layers=30) for seed, name in enumerate("ab")]
    text = told(deep, None, None)
    assert f"shown: the {MOST_ROWS} of 92 groups with the largest relative L2; --output writes all of them" in text
    assert sum(" layers." in f" {line}" for line in text.splitlines()) <= MOST_ROWS


def test_names_tell_checkpoints_apart(tmp_path):
    same = [save(tmp_path / name / "checkpoint", seed) for seed, name in enumerate("ab")]
    assert told(same, None, None).startswith("a/checkpoint and b/checkpoint: weights")


def test_what_makes_no_sense_is_refused(models):
    with pytest.raises(ConfigError, match=r"a distance needs at least 2 checkpoints, got .*first; name another"):
        told(models[:1], None, None)
    with pytest.raises(ConfigError, match="is named 2 times; name each checkpoint once"):
        told([models[0]] * 2, None, None)
    with pytest.raises(ConfigError, match="--experts compares the experts inside one checkpoint, but 2 are named"):
        told(models[:2], None, None, experts=["v", "l"])
    with pytest.raises(ConfigError, match=r"density is 1\.5"):
        told(models[:2], None, None, density=1.5)
    with pytest.raises(InputError, match="does not exist"):
        told([models[0], "/no/such/place"], None, None)


def test_a_measurement_is_one_run_of_mlflow(models, tmp_path, database, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for _ in range(2):  # the second time it is the same run
        text = told(models[:2], None, None, mlflow=True, workspace=tmp_path)
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    (run,) = client.search_runs([client.get_experiment_by_name("distance").experiment_id])
    assert f"MLflow: run {run.info.run_id} of experiment 'distance'" in text
    assert run.data.tags["mergeline.kind"] == "distance"
    assert run.info.status == "FINISHED"
    assert {"distance/l2", "distance/cosine", "distance/truncated_ssd"} <= run.data.metrics.keys()
    assert run.data.params == {"sources": "first, second", "base": "-", "density": "0.2"}
    curve = client.get_metric_history(run.info.run_id, "distance/relative_l2/mlp")
    assert [point.step for point in curve] == [0, 1]
    found = {item.path for item in client.list_artifacts(run.info.run_id, "distance")}
    assert found == {"distance/distance.json", "distance/distance.csv", "distance/distance.png"}
