"""The files under experiments/ are valid and can be planned as they are."""

from pathlib import Path

import pytest

from pipeline.config.experiment import build, validate

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_experiment_file_is_valid_and_named_after_itself(file: Path, tmp_path: Path) -> None:
    assert validate(file).startswith("valid")
    built = build(file, [f"workspace={tmp_path}"])
    assert built.name == file.stem
    assert built.steps


def test_the_baseline_shares_base_evaluation_and_first_stage_with_wise_ft(tmp_path: Path) -> None:
    wise, plain = (build(file, [f"workspace={tmp_path}"]) for file in FILES if file.stem in ("digits_wise_ft", "digits_sequential"))
    shared = {step.key for step in wise.steps} & {step.key for step in plain.steps}
    assert sorted(key.split("-")[0] for key in shared) == ["evaluate", "evaluate", "finetune", "pretrain"]
