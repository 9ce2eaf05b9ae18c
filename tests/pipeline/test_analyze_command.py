"""`analyze numbers` and `analyze layers`: what they print, write and refuse, for tiny checkpoints."""

import io
import json

import matplotlib.image
import pytest
import torch
from rich.console import Console

from foundation.errors import ConfigError, InputError
from models.digits_llava import digits_llava, digits_processor
from models.load import save_checkpoint
from pipeline.command.analyze import analyze_layers, analyze_numbers, short_names
from pipeline.command.analyze_tables import folded
from tasks.digits import all_texts

SAMPLES = 3


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A base and what became of it at two steps."""
    directory, processor = tmp_path_factory.mktemp("checkpoints"), digits_processor(all_texts())
    for step in (0, 1, 10):
        model = digits_llava(0)
        with torch.no_grad():
            for layer in model.model.language_model.layers:
                layer.mlp.down_proj.weight += 0.01 * step
        save_checkpoint(model, processor, directory / f"step-{step}")
    return [str(directory / f"step-{step}") for step in (0, 1, 10)]


def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def printed(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_numbers(checkpoints, tmp_path) -> None:
    screen, output = console(), tmp_path / "out"
    analyze_numbers(checkpoints, ["count", "name"], SAMPLES, output, max_new_tokens=4, console=screen)
    text = printed(screen)
    assert "asking step-10, name" in text
    lines = text.splitlines()
    start = lines.index(f"count: mean ± standard deviation over {SAMPLES} samples")
    assert lines[start + 1].split() == ["statistic", "step-0", "step-1", "step-10"]
    assert [line.split()[0] for line in lines[start + 2 : start + 9]] == [
        "avg_max_number_logit", "max_number_logit", "avg_total_number_prob", "max_total_number_prob",
        "avg_max_number_prob", "max_max_number_prob", "num_generation_steps",
    ]  # fmt: skip
    told = json.loads((output / "numbers.json").read_text())
    assert told["order"] == ["step-0", "step-1", "step-10"]
    assert told["max_new_tokens"] == {"count": 4, "name": 4}
    first = told["checkpoints"]["step-0"]["count"]
    assert f"{first['mean']['avg_max_number_logit']:.4g} ± {first['std']['avg_max_number_logit']:.3g}" in lines[start + 2]
    assert len(first["samples"]) == SAMPLES
    assert first["mean"] != told["checkpoints"]["step-10"]["count"]["mean"]
    tokens = [line.split("\t")[1] for line in (output / "number_tokens.txt").read_text().splitlines()]
    assert len(tokens) == first["number_tokens"]
    assert "Ġseven" in tokens
    assert str(tmp_path) not in (output / "numbers.json").read_text(), "no path of this machine"
    assert matplotlib.image.imread(output / "numbers.png").std() > 0.05
    assert lines[-1].startswith(f"next: python -m pipeline analyze layers {checkpoints[1]} {checkpoints[2]} --base {checkpoints[0]} --task")


def test_layers(checkpoints, tmp_path) -> None:
    screen, output = console(), tmp_path / "out"
    analyze_layers(checkpoints[0], checkpoints[1:], ["name", "where"], SAMPLES, output, console=screen)
    lines = printed(screen).splitlines()
    told = json.loads((output / "layers.json").read_text())
    assert told["tasks"] == ["name", "where"]
    curves = told["checkpoints"]["step-10"]
    assert curves["samples"] == 2 * SAMPLES
    assert curves["attention"][0] == 0, "the first attention reads what it read before"
    assert min(curves["mlp"]) > 0
    assert curves["mlp"][0] > told["checkpoints"]["step-1"]["mlp"][0]
    row = next(line for line in lines if line.startswith("layer 2"))
    assert f"{curves['attention'][2]:.4g} / {curves['mlp'][2]:.4g}" in row
    mean = next(line for line in lines if line.startswith("mean"))
    assert f"/ {sum(curves['mlp']) / 3:.4g}" in mean
    assert matplotlib.image.imread(output / "layers.png").std() > 0.05
    assert lines[-1] == f"next: python -m pipeline distance {checkpoints[0]} {checkpoints[2]} --output {output}-weights"


def test_pictures_are_the_same_bytes_again(checkpoints, tmp_path) -> None:
    for place in ("first", "second"):
        analyze_layers(checkpoints[0], checkpoints[2:], ["name"], 2, tmp_path / place, console=console())
    for name in ("layers.json", "layers.png"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_columns_are_folded_not_cut() -> None:
    cells = {"a": ["1.5"], "a long name": ["1"], "c": ["2"]}
    assert folded("row", ["first"], cells, 80) == [["a", "a long name", "c"]]
    assert folded("row", ["first"], cells, 18) == [["a"], ["a long name"], ["c"]]
    assert folded("row", ["first"], cells, 5) == [["a"], ["a long name"], ["c"]]


def test_names_tell_checkpoints_apart() -> None:
    assert short_names(["runs/a/base", "runs/a/tuned"]) == ["base", "tuned"]
    assert short_names(["runs/a/1/checkpoint", "runs/b/1/checkpoint"]) == ["a/1/checkpoint", "b/1/checkpoint"]
    assert short_names(["one"]) == ["one"]


def test_what_makes_no_sense_is_refused_before_any_work(checkpoints, tmp_path) -> None:
    base, tuned, _ = checkpoints
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="no checkpoint is named"):
        analyze_numbers([], ["count"], 1, out, console=console())
    with pytest.raises(ConfigError, match="more than once; name each checkpoint once"):
        analyze_layers(base, [base], ["count"], 1, out, console=console())
    with pytest.raises(ConfigError, match="no tuned checkpoint is named"):
        analyze_layers(base, [], ["count"], 1, out, console=console())
    with pytest.raises(ConfigError, match=r"unknown task 'cuont'; did you mean 'count'\?"):
        analyze_numbers([base], ["cuont"], 1, out, console=console())
    with pytest.raises(ConfigError, match="--task names 'count' more than once"):
        analyze_numbers([base], ["count", "count"], 1, out, console=console())
    with pytest.raises(ConfigError, match="no task is named"):
        analyze_numbers([base], [], 1, out, console=console())
    with pytest.raises(ConfigError, match="--split: unknown split 'train'"):
        analyze_numbers([base], ["count"], 1, out, split="train", console=console())
    with pytest.raises(ConfigError, match="--samples is 0; give at least 1"):
        analyze_numbers([base], ["count"], 0, out, console=console())
    with pytest.raises(ConfigError, match="--max-new-tokens is 0"):
        analyze_numbers([base], ["count"], 1, out, max_new_tokens=0, console=console())
    with pytest.raises(InputError, match="does not exist"):
        analyze_layers(base, [tuned, str(tmp_path / "nowhere")], ["count"], 1, out, console=console())
    assert not out.exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "numbers.json").touch()
    with pytest.raises(ConfigError, match=r"--output .* is not empty \(it holds numbers\.json\)"):
        analyze_numbers([base], ["count"], 1, tmp_path / "full", console=console())
