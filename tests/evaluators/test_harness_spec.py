"""Tasks of other harnesses as values, and what is refused before anything runs: names, interpreters, versions, checkpoints."""

import json
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from evaluators.harness.command import command_of, environment_of
from evaluators.harness.environment import interpreter, model_class, versions
from evaluators.harness.known import check_task, code_digest
from evaluators.harness.spec import Harness, HarnessTask
from evaluators.suite import Suite
from foundation.errors import ConfigError, InputError
from tasks.task import Split

TASK = HarnessTask("arc", Harness.LM_EVAL, "arc_easy")


@pytest.mark.parametrize("name", ["arc_*", "arc_easy,arc_challenge", "mine/task.yaml", "task.yaml", "-x", "arc easy", "../arc"])
def test_a_name_that_a_harness_would_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of one task"):
        HarnessTask("column", Harness.LM_EVAL, name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "needs a name"),
        ({"name": "a/b"}, "a name has no '/'"),
        ({"shots": -1}, "shots is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"directory": "mine"}, "whose files have no digest"),
        ({"harness": Harness.LMMS_EVAL, "chat_template": True}, "by the model's own chat template"),
    ],
)
def test_fields_that_cannot_be_honoured(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HarnessTask(**{"name": "column", "harness": Harness.LM_EVAL, "task": "arc_easy", **changes})


def test_where_it_runs_is_not_what_it_is() -> None:
    assert HarnessTask("arc", Harness.LM_EVAL, "arc_easy", python="/elsewhere/python", network=True) == TASK
    assert HarnessTask("arc", Harness.LM_EVAL, "arc_easy", shots=5) != TASK


def test_a_suite_of_them_alone_is_held_out_and_asks_the_test_split_only() -> None:
    suite = Suite((), harness=(TASK,))
    assert (suite.names, suite.held_out_names, suite.stream_names, suite.tasks) == (("arc",), ("arc",), (), ())
    with pytest.raises(ConfigError, match="leave `harness` out, or ask the test split"):
        Suite((), split=Split.VALIDATION, harness=(TASK,))
    with pytest.raises(ConfigError, match="names 'arc' more than once"):
        Suite((), harness=(TASK, TASK))


def test_the_interpreter_that_is_named_goes_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MERGELINE_LM_EVAL", raising=False)
    with pytest.raises(ConfigError, match=r"no interpreter of lm_eval: .*\.harness/lm_eval/bin/python does not exist; make harness makes"):
        interpreter(Harness.LM_EVAL)
    monkeypatch.setenv("MERGELINE_LM_EVAL", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"MERGELINE_LM_EVAL names .*gone, which is no program"):
        interpreter(Harness.LM_EVAL)
    (tmp_path / "envs").symlink_to(Path(sys.executable).parent)
    assert interpreter(Harness.LM_EVAL, f"envs/{Path(sys.executable).name}", tmp_path).samefile(sys.executable)
    monkeypatch.setenv("MERGELINE_LM_EVAL", sys.executable)
    assert interpreter(Harness.LM_EVAL) == Path(sys.executable)
    with pytest.raises(ConfigError, match=r"python names .*none, which is no program"):
        interpreter(Harness.LM_EVAL, "none", tmp_path)


def test_an_environment_without_the_harness_or_with_another_version_is_refused(tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=False)
    python = tmp_path / "bin" / "python"
    with pytest.raises(ConfigError, match=r"has no lm_eval; make harness makes an environment with lm_eval 0\.4\.13"):
        versions(Harness.LM_EVAL, python)
    site = next((tmp_path / "lib").glob("python*/site-packages"))
    for name, version in (("lm_eval", "0.4.5"), ("torch", "2.13.0")):
        place = site / f"{name}-{version}.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    versions.cache_clear()
    with pytest.raises(ConfigError, match=r"has lm_eval 0\.4\.5, but results are read as 0\.4\.13 writes them"):
        versions(Harness.LM_EVAL, python)
    (site / "lm_eval-0.4.5.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lm_eval\nVersion: 0.4.13\n")
    versions.cache_clear()
    assert versions(Harness.LM_EVAL, python) == {"lm_eval": "0.4.13", "torch": "2.13.0"}


def test_what_is_no_python_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(ConfigError, match=r"does not answer as a Python interpreter \(broken\)"):
        versions(Harness.LM_EVAL, program)


@pytest.mark.parametrize(
    ("config", "harness", "found"),
    [
        ({"model_type": "llama"}, Harness.LM_EVAL, "hf"),
        ({"model_type": "llava", "vision_config": {}}, Harness.LM_EVAL, "hf-multimodal"),
        ({"model_type": "llava_onevision", "vision_config": {}}, Harness.LMMS_EVAL, "llava_hf"),
        ({"model_type": "qwen2_5_vl", "vision_config": {}}, Harness.LMMS_EVAL, "qwen2_5_vl"),
    ],
)
def test_the_class_for_a_checkpoint(tmp_path: Path, config: dict[str, Any], harness: Harness, found: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_class(harness, tmp_path, ("torchvision",)) == found


def test_checkpoints_that_a_harness_cannot_take(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json does not say what model it is"):
        model_class(Harness.LM_EVAL, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match=r"model_type 'llama'\); it can ask llava, llava_next, "):
        model_class(Harness.LMMS_EVAL, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    with pytest.raises(InputError, match=r"by its class qwen2_vl, which needs torchvision"):
        model_class(Harness.LMMS_EVAL, tmp_path, ("torch",))
    (tmp_path / "a,b").mkdir()
    (tmp_path / "a,b" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="has a comma in its path"):
        model_class(Harness.LM_EVAL, tmp_path / "a,b")


def test_the_digest_of_a_directory_is_of_its_files_alone(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "task.yaml").write_text("task: x")
        (tmp_path / name / "data" / "rows.jsonl").write_text("{}")
    before = code_digest(tmp_path / "here")
    (tmp_path / "here" / "__pycache__").mkdir()
    (tmp_path / "here" / "__pycache__" / "utils.pyc").write_bytes(b"compiled")
    assert code_digest(tmp_path / "here") == before == code_digest(tmp_path / "there")
    (tmp_path / "here" / "data" / "rows.jsonl").write_text("{ }")
    assert code_digest(tmp_path / "here") != before


def test_a_tag_is_refused() -> None:
    with pytest.raises(ConfigError, match="as a tag of several tasks"):
        check_task(TASK, {"kind": "tag", "metrics": []})


def test_the_command_is_what_one_would_type(tmp_path: Path) -> None:
    task = HarnessTask("arc", Harness.LM_EVAL, "arc_easy", shots=5, chat_template=True, batch_size=8, python="/envs/python")
    command = " ".join(command_of(Path("/models/tuned"), [task, task], 100, Path("/runs/results"), "hf", cuda=False))
    assert command == (
        "/envs/python -m lm_eval run --model hf --model_args pretrained=/models/tuned,dtype=auto --tasks arc_easy --limit 100 "
        "--batch_size 8 --seed 0 --log_samples --output_path /runs/results/results.json --num_fewshot 5 --apply_chat_template"
    )


def test_the_network_is_off_unless_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    closed = environment_of(TASK)
    assert closed["HF_HUB_OFFLINE"] == closed["HF_DATASETS_OFFLINE"] == closed["TRANSFORMERS_OFFLINE"] == "1"
    assert "PYTHONPATH" not in closed
    allowed = environment_of(HarnessTask("arc", Harness.LM_EVAL, "arc_easy", network=True))
    assert "HF_HUB_OFFLINE" not in allowed
