"""The files under experiments/ can be planned as they are; the real ones on a config without weights and small benchmarks."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import benchmark_fixtures as targets
import benchmark_fixtures_held_out as held_out
import pytest
from real_configs import CONFIGS

from pipeline.command.validate import validate_experiment
from pipeline.config.experiment import build
from pipeline.steps import FineTune

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
DIGITS = [file for file in FILES if file.stem.startswith("digits")]
REAL = [file for file in FILES if file.stem.startswith("llava")]
"""Those of modality merging are planned in test_modality_recipe.py."""
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


MADE: dict[str, Callable[[Path], Path]] = {
    "data/CUB_200_2011": targets.cub200,
    "data/pixmo-count": targets.pixmocount,
    "flaviagiammarino/path-vqa": targets.pathvqa,
    "lmms-lab/textvqa": targets.textvqa,
    "AvaXiao/clockreading-time": targets.timeclock,
    "lmms-lab/ai2d": held_out.ai2d,
    "lmms-lab/ChartQA": held_out.chartqa,
    "lmms-lab/DocVQA": held_out.docvqa,
    "lmms-lab/RealWorldQA": held_out.realworldqa,
    "lmms-lab/SEED-Bench": held_out.seedbench,
    "lmms-lab/ScienceQA": held_out.scienceqa,
    "Lin-Chen/MMStar": held_out.mmstar,
}
"""Where suites/lmm_cl.yaml looks for raw files -> what writes a small one in the published format. A directory goes before a hub id."""


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what a user brings: the suite, raw files of its benchmarks, and the configs of the base models."""
    for place, make in MADE.items():
        make(tmp_path / place)
    held_out.infovqa(tmp_path / "lmms-lab/DocVQA")
    shutil.copytree(FILES[0].parents[1] / "suites", tmp_path / "suites")
    for family in ("llava_onevision", "llava_next"):
        (tmp_path / family).mkdir()
        (tmp_path / family / "config.json").write_text(json.dumps(CONFIGS[family]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
