"""Modality merging from a file: what is refused in it, the published setting planned, and a tiny one run twice."""

import json
from pathlib import Path
from typing import Any

import published_data
import pytest
import yaml
from commands import ended

from foundation.errors import ConfigError, InputError
from pipeline.command.validate import validate_experiment
from pipeline.config.experiment import build, read_config
from pipeline.steps import Gram, LearnPairs, MergeExperts, Reshaped, StartExperts
from pipeline.titles import step_titles, title_of
from tasks.arrow.convert import convert
from tasks.arrow.drafts import Options

STAGE = {"sets": ["digits_captions"], "samples": 32, "objectives": {"mlm": 1, "itc": 1}, "max_steps": 2, "batch_size": 8}
SMALL: dict[str, Any] = {
    "recipe": "modality_merging",
    "name": "small",
    "model": {"digits": True, "config": {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 48, "num_hidden_layers": 3}},
    "seed_pretrain": STAGE,
    "pretrain": {**STAGE, "milestones": [1]},
    "merges": [
        {"method": "interpolation", "ratio": [0.5, 1.0]},
        {"method": "arithmetic", "scale": 0.5},
        {"method": "regmean", "off_diagonal": 0.9},
    ],
    "gram": {"samples": 8, "parts": 2, "actors": 0},
    "merge": {"actors": 0},
    "fine_tune": {**STAGE, "objectives": {"retrieval": 1}},
    "fine_tuned": ["unmerged", "regmean 0.9"],
    "evaluate": {"sets": ["digits_captions"], "samples": 8},
}


def written(place: Path, **changes: Any) -> Path:
    """The small experiment with other keys; None takes one away. A dotted key lies deeper."""
    data = json.loads(json.dumps(SMALL))
    for name, value in changes.items():
        *groups, last = name.split("__")
        group = data
        for each in groups:
            group = group[each]
        if value is None:
            del group[last]
        else:
            group[last] = value
    path = place / "small.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pretrain__objectives": {"itcc": 1}}, r"unknown objective 'itcc'; did you mean 'itc'"),
        ({"pretrain__objectives": {"itm": 1}}, r"itm takes its hard negatives from the similarities of itc; add itc"),
        ({"pretrain__objectives": {"vqa": 1}}, r"pretrain: vqa learn from questions, but 'digits_captions' holds captions"),
        ({"pretrain__sets": ["digits_caption"]}, r"pretrain\.sets: unknown set 'digits_caption'; did you mean 'digits_captions'"),
        ({"merges": [{"method": "interpolate"}]}, r"merges\[0\]: unknown method 'interpolate'; did you mean 'interpolation'"),
        ({"merges": [{"method": "interpolation", "ratio": 2.0}]}, r"ratio is 2\.0; .* must lie between 0 and 1"),
        ({"merges": [{"method": "interpolation", "ratioo": 0.5}]}, r"unknown parameter 'ratioo'; did you mean 'ratio'"),
        ({"merges": [{"method": "ties", "density": [0.1, 0.2], "scale": [1, 2]}]}, r"has lists for density and scale; vary one"),
        ({"merges": [{"method": "ties", "density": 0.1}] * 2}, r"'ties 0\.1' is there twice"),
        ({"seed_pretrain": None}, r"arithmetic measures the experts from their seed; add seed_pretrain"),
        ({"fine_tuned": ["regmean"]}, r"fine_tuned: unknown arm 'regmean'; did you mean 'regmean 0\.9'"),
        ({"model": {"beit": "b"}}, r"beit has no tokenizer; name a directory with one"),
        ({"model": {"digits": True, "beit": "b"}}, r"model names digits and beit"),
        ({"model": {"vlmo": "m.ckpt", "tokenizer": "t"}}, r"a \.ckpt file is a pickle; set allow_pickle: true"),
        ({"evaluate__sets": ["digits_labels"], "evaluate__rerank": 3}, r"rerank orders what was retrieved, but 'digits_labels' holds"),
        ({"data": {"digits_labels": {"kind": "labels", "train": "x"}}}, r"'digits_labels', which is a set that is there already"),
        ({"data": {"mine": {"set": "coco"}}}, r"set coco needs root"),
        ({"data": {"mine": {"set": "cocoo", "root": "r"}}}, r"unknown data set 'cocoo'; did you mean 'coco'"),
        ({"pretrain__precision": "float16"}, r"precision float16 needs GPUs"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_what_no_experiment_could_honour_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_config(written(tmp_path, **changes))


def test_the_steps_of_an_experiment(tmp_path: Path) -> None:
    built = build(written(tmp_path), [f"workspace={tmp_path}"])
    steps = built.steps
    arms = list(dict.fromkeys(milestone.arm for milestone in built.milestones))
    assert arms == [
        "unmerged", "seed only", "agnostic", "interpolation 0.5", "interpolation 1", "arithmetic 0.5", "regmean 0.9",
        "unmerged, step 1", "interpolation 0.5, step 1",
    ]  # fmt: skip
    stages = [step for step in steps if isinstance(step, LearnPairs)]
    assert [stage.name for stage in stages] == ["seed pretrain", "pretrain", "fine-tune", "pretrain", "fine-tune"]
    specific = next(stage for stage in stages if isinstance(stage.model, Reshaped))
    assert (specific.model.sharing, specific.model.model) == ("all", stages[0])  # type: ignore[attr-defined]
    merges = {step.method: step for step in steps if isinstance(step, MergeExperts)}
    assert {step.used_by for step in merges.values()} == {"retrieval"}
    assert merges["arithmetic"].base is stages[0]
    assert [name for name, step in merges.items() if step.statistics] == ["regmean"]
    assert len([step for step in steps if isinstance(step, Gram)]) == 1
    titles = step_titles(built.milestones)
    assert all("-" not in title_of(step, titles).split()[0] or title_of(step, titles).startswith("fine-tune") for step in steps)


def test_how_it_is_run_changes_no_fingerprint(tmp_path: Path) -> None:
    path, place = written(tmp_path), f"workspace={tmp_path}"
    plain = build(path, [place]).identity
    told = ["merge.actors=3", "gram.actors=2", "pretrain.workers=2", "pretrain.save_steps=1", "pretrain.title=mine", "evaluate.gpus=1"]
    assert build(path, [place, *told]).identity == plain
    assert build(path, [place, "gram.parts=3"]).identity != plain


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with converted data, and places for the weights and the tokenizer that a user brings."""
    makers = {
        "coco": published_data.coco, "visual_genome": published_data.visual_genome, "sbu": published_data.sbu,
        "conceptual_captions": published_data.conceptual_captions, "vqav2": published_data.vqav2,
    }  # fmt: skip
    for name, make in makers.items():
        options = Options(rest_images=1, least_answers=1) if name == "vqav2" else Options()
        convert(name, make(tmp_path / name), tmp_path / "data/arrow", options)
    for place, file in (("beit-base-patch16-224-pt22k-ft22k", "config.json"), ("bert-base-uncased", "vocab.txt")):
        (tmp_path / "weights" / place).mkdir(parents=True)
        (tmp_path / "weights" / place / file).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fewer(*stages: str) -> list[str]:
    """Overrides with which the little data fills a batch."""
    return [f"{stage}.{key}" for stage in stages for key in ("batch_size=2", "workers=1")]


@pytest.mark.parametrize(("name", "models", "steps"), [("agnostic", 1, 5), ("specific", 1, 5), ("merging", 6, 27)])
def test_the_published_setting_is_planned(published: Path, name: str, models: int, steps: int) -> None:
    file = Path(__file__).parents[2] / f"experiments/modality_{name}.yaml"
    with pytest.raises(ConfigError, match="examples, which do not fill one batch of 1056; lower batch_size"):
        validate_experiment(file)
    few = fewer("pretrain", "fine_tune", *(["seed_pretrain"] if name == "merging" else []))
    told = validate_experiment(file, few)
    assert f"recipe modality_{name}, {models} models x 1 seeds" in told
    assert "set coco: captions, 2 of train, 1 of validation, 1 of test" in told.replace("3 of train", "2 of train")
    built = build(file, [f"workspace={published}", *few])
    assert len({milestone.arm for milestone in built.milestones}) == models
    first = next(step for step in built.steps if isinstance(step, StartExperts))
    assert (first.origin, first.config["heads"]) == ("beit", ["mlm", "itm", "itc", "itc_vl"])
    _, config = read_config(file)
    train = config.pretrain.modality(seed=0).train
    assert (train.batch_size, train.learning_rate, train.warmup_ratio, train.adam_beta2) == (1056, 2e-4, 0.0125, 0.98)
    tuned = config.fine_tune.modality(seed=0).train
    assert (tuned.batch_size, tuned.epochs) == (640, 20)


def test_vqa_starts_from_any_directory(published: Path) -> None:
    place = published / "runs/modality_agnostic/checkpoints/model"
    file = Path(__file__).parents[2] / "experiments/modality_vqa.yaml"
    with pytest.raises(InputError, match=r"has no config\.json, so it is no checkpoint"):
        validate_experiment(file)
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="holds a model of type 'bert', not a modality-expert model"):
        validate_experiment(file)
    shape = {"sharing": "shared", "heads": ["itc"], "image_size": 224, "token_types": 2}
    (place / "config.json").write_text(json.dumps({"model_type": "modality_experts", **shape}))
    (place / "tokenizer.json").touch()
    assert "set vqav2: questions" in validate_experiment(file, fewer("fine_tune"))


@pytest.mark.cluster
@pytest.mark.slow
def test_a_run_and_the_same_again(ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModel

    import models.modality_experts

    path = written(tmp_path)
    first = ended(capsys, "run", path, f"workspace={tmp_path}")
    assert first.code == 0, first.said
    assert "retrieval of every arm" in first.out
    again = ended(capsys, "run", path, f"workspace={tmp_path}")
    assert again.code == 0
    assert "0 of " in again.out
    run = tmp_path / "runs/small"
    report = {entry.name for entry in (run / "report").iterdir()}
    assert {"report.md", "outcomes.csv", "figures.csv", "distances.csv", "correlations.csv", "merges.png"} <= report
    merged = AutoModel.from_pretrained((run / "checkpoints/regmean_0.9-seed0/model").resolve())
    assert isinstance(merged, models.modality_experts.ModalityExpertsModel)
    assert merged.config.sharing == "shared"
    assert ended(capsys, "report", "small", "--workspace", tmp_path).code == 0
