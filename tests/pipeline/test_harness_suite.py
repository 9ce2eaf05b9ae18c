"""Tasks of other harnesses in a suite: their keys, what is refused while the file is read, and lm-eval beside our own tasks."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from harness_models import python_of, sum_tasks
from pydantic import ValidationError

from evaluators.harness.spec import Harness, HarnessTask
from evaluators.suite import Suite
from foundation.errors import ConfigError
from pipeline.config.harness_settings import HarnessSettings, harness_tasks
from tasks.registry import get_task


def settings(**keys: Any) -> HarnessSettings:
    return HarnessSettings.model_validate(keys)


def test_tasks_are_named_or_have_keys() -> None:
    found = settings(lm_eval={"tasks": ["arc_easy", {"task": "gsm8k", "metric": "exact_match,strict-match", "shots": 5, "name": "gsm"}]})
    assert found.names == ("arc_easy", "gsm")
    assert found.lm_eval is not None
    assert (found.lm_eval.tasks[1].shots, found.lm_eval.network, found.lm_eval.batch_size) == (5, False, 1)
    assert harness_tasks(None) == ()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tasks": ["sums"], "directory": "mine"}, "directory mine holds tasks of your own, .* set allow_code: true"),
        ({"tasks": ["sums"], "allow_code": True}, "allow_code is for a directory"),
        ({"tasks": ["sums"], "allow_code": "yes", "directory": "mine"}, "valid boolean"),
        ({"tasks": []}, "at least 1 item"),
        ({"tasks": ["sums", "sums"]}, "two tasks are called 'sums' in our tables; give one of them another name"),
        ({"tasks": ["arc_*"]}, "is not the name of one task"),
        ({"tasks": [{"task": "sums", "shot": 1}]}, "Extra inputs are not permitted"),
        ({"tasks": [{"task": "sums", "shots": -1}]}, "greater than or equal to 0"),
    ],
)
def test_what_is_refused_while_it_is_read(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){message}"):
        settings(lm_eval=keys)


def test_lmms_eval_asks_one_question_at_a_time() -> None:
    with pytest.raises(ValidationError, match="lmms_eval asks one question at a time"):
        settings(lmms_eval={"tasks": ["ai2d"], "batch_size": 4})


def test_one_name_of_both_harnesses() -> None:
    with pytest.raises(ValidationError, match="two tasks are called 'ai2d'"):
        settings(lm_eval={"tasks": ["ai2d"]}, lmms_eval={"tasks": ["ai2d"]})


def test_what_is_refused_when_the_suite_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No interpreter; one without the harness."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MERGELINE_LM_EVAL", raising=False)
    with pytest.raises(ConfigError, match="no interpreter of lm_eval"):
        harness_tasks(settings(lm_eval={"tasks": ["sums"]}))
    with pytest.raises(ConfigError, match="has no lm_eval; make harness"):
        harness_tasks(settings(lm_eval={"tasks": ["sums"], "python": sys.executable}))


def test_directories_are_checked_and_digested(tmp_path: Path) -> None:
    python = python_of(Harness.LM_EVAL)

    def tasks(directory: str) -> tuple[HarnessTask, ...]:
        keys = {"tasks": ["sums"], "python": python, "directory": directory, "allow_code": True}
        return harness_tasks(settings(lm_eval=keys), tmp_path)

    with pytest.raises(ConfigError, match=r"harness\.lm_eval\.directory: .*mine is not a directory"):
        tasks("mine")
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match=r"mine holds no task files"):
        tasks("mine")
    first = tasks(str(sum_tasks(tmp_path / "mine" / "sums").parent))
    assert first == tasks("mine")
    assert first[0].directory == str(tmp_path / "mine")
    assert first[0].version == "0.4.13"
    with open(tmp_path / "mine" / "sums" / "sums.jsonl", "a") as file:
        file.write("\n")
    assert tasks("mine") != first, "data that changed makes another task"


@pytest.mark.slow
@pytest.mark.xdist_group("harness")
def test_a_suite_asks_lm_eval_beside_our_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vision-language model is asked text tasks too; its scores and samples stand with ours."""
    from evaluators.evaluate import evaluate
    from evaluators.scores import read_samples, read_scores
    from models.digits_llava import digits_llava, digits_processor
    from models.load import save_checkpoint
    from tasks.digits import all_texts

    python = python_of(Harness.LM_EVAL)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    save_checkpoint(digits_llava(seed=3), digits_processor(all_texts()), tmp_path / "vlm")
    sum_tasks(tmp_path / "mine")
    keys = {"tasks": ["sums", "spoken_sums"], "python": os.path.relpath(python, tmp_path), "directory": "mine", "allow_code": True}
    suite = Suite((get_task("parity"),), samples=5, harness=harness_tasks(settings(lm_eval=keys), tmp_path))
    scores = evaluate(tmp_path / "vlm", suite, tmp_path / "out")
    assert list(scores) == ["sums", "sums/acc_norm", "spoken_sums", "parity"]
    assert read_scores(tmp_path / "out" / "scores.json") == scores
    samples = read_samples(tmp_path / "out" / "samples.parquet")
    for name in suite.names:
        mine = [sample.score for sample in samples if sample.task == name]
        assert len(mine) == scores[name].samples == 5
        assert sum(mine) / 5 == pytest.approx(scores[name].accuracy, abs=1e-12)  # means of five values in float64
