"""The files under experiments/ can be planned as they are; the real ones on a config without weights and a handful of records."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from real_configs import CONFIGS

from pipeline.command.validate import validate_experiment
from pipeline.config.experiment import build
from pipeline.steps import FineTune

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
DIGITS = [file for file in FILES if file.stem.startswith("digits")]
REAL = [file for file in FILES if file.stem.startswith("llava")]
"""Those of modality merging are planned in test_modality_recipe.py."""
TASKS = ("cub200", "pixmocount", "pathvqa", "textvqa", "timeclock")
LEARNED = {
    "llava_onevision_wise_ft_mlp": "5,703,204,864 of 8,030,348,832 weights learn (language_model.mlp 5,703,204,864)",
    "llava_onevision_wise_ft_full": "7,632,601,088 of 8,030,348,832 weights learn",
    "llava_onevision_orders": "5,703,204,864 of 8,030,348,832 weights learn (language_model.mlp 5,703,204,864)",
    "llava_next_llama3_wise_ft_mlp": "5,637,144,576 of 8,354,752,512 weights learn (language_model.mlp 5,637,144,576)",
}


@pytest.mark.parametrize("file", DIGITS, ids=lambda file: file.stem)
def test_an_experiment_file_is_valid_and_named_after_itself(file: Path, tmp_path: Path) -> None:
    assert validate_experiment(file).startswith("valid")
    built = build(file, [f"workspace={tmp_path}"])
    assert built.name == file.stem
    assert built.steps


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what a user brings: records and images of every task, and the configs of the base models."""
    for task in TASKS:
        folder = tmp_path / "data" / task
        (folder / "images").mkdir(parents=True)
        for split, count in (("train", 40), ("test", 4)):
            records = [record(f"{split}{index}.png") for index in range(count)]
            for index, shown in enumerate(records):
                Image.new("RGB", (8, 8), (index, 0, 100 * (split == "test"))).save(folder / "images" / shown["image"])
            (folder / f"{split}.json").write_text(json.dumps(records))
    for family in ("llava_onevision", "llava_next"):
        (tmp_path / family).mkdir()
        (tmp_path / family / "config.json").write_text(json.dumps(CONFIGS[family]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(image: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": "<image>\nHow many?"}, {"from": "gpt", "value": "3"}]
    return {"id": image, "image": image, "conversations": turns}


@pytest.mark.parametrize("file", REAL, ids=lambda file: file.stem)
def test_a_real_experiment_is_planned_on_a_config_alone(file: Path, brought: Path) -> None:
    family = "llava_next" if "next" in file.stem else "llava_onevision"
    key = "common.base" if "orders" in file.stem else "base"
    told = validate_experiment(file, [f"{key}={family}"])
    assert LEARNED[file.stem] in told
    assert "cannot be used" not in told
    built = build(file, [f"{key}={family}", f"workspace={brought}"])
    stages = [step for step in built.steps if isinstance(step, FineTune)]
    assert len(stages) == (15 if "orders" in file.stem else 5)
    assert {stage.demand["GPU"] for stage in stages} == {4}
    first = stages[0].train
    assert (first.batch_size, first.micro_batch_size, first.schedule, first.warmup_ratio) == (32, 1, "cosine", 0.03)


def test_the_baseline_shares_base_evaluation_and_first_stage_with_wise_ft(tmp_path: Path) -> None:
    wise, plain = (build(file, [f"workspace={tmp_path}"]) for file in FILES if file.stem in ("digits_wise_ft", "digits_sequential"))
    shared = {step.key for step in wise.steps} & {step.key for step in plain.steps}
    assert sorted(key.split("-")[0] for key in shared) == ["evaluate", "evaluate", "finetune", "pretrain"]
