"""The whole experiment on real Ray, real training, real merges and real MLflow, with a model too small to learn anything."""

import io
import shutil
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from tiny_run import TINY, final_checkpoint, records, run_tiny, tracked

from evaluators.scores import read_samples
from foundation.errors import InputError, ResourceError
from pipeline.command.summary import report_runs
from pipeline.config.experiment import Built, build
from pipeline.plan import needed, plan_steps
from pipeline.runner import Finished, run
from pipeline.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def checkpoint(workspace: Path, name: str) -> Path:
    return (workspace / "runs" / "tiny" / "checkpoints" / name).resolve()


def test_every_step_is_stored_and_shown(tiny: tuple[Path, Built, Finished, str]) -> None:
    workspace, built, finished, text = tiny
    assert finished.steps_run == len(built.steps) == 10
    assert sorted(records(workspace)) == sorted(step.key for step in built.steps)
    assert "10/10" in text
    assert "0.5 x previous + 0.5 x tuned" in text
    for name in ("accuracy in % after each stage", "report.md", "compare-runs", "python -m pipeline ui"):
        assert name in text


def test_the_view_follows_the_seeds_output_structure(tiny: tuple[Path, Built, Finished, str]) -> None:
    room = tiny[0] / "runs" / "tiny"
    assert {path.name for path in (room / "checkpoints").iterdir()} == {
        "base", "trained_on_parity", "wise_ft_after_parity", "trained_on_parity_then_count", "wise_ft_after_count",
    }  # fmt: skip
    per_stage = {
        f"{name}_{task}" for name in ("before_wise_ft_after", "after_wise_ft_after", "final_after") for task in ("parity", "count")
    }
    assert {path.name for path in (room / "logs").iterdir()} == {"base"} | per_stage
    assert all(path.resolve().exists() for part in ("checkpoints", "logs") for path in (room / part).iterdir())


def test_merged_weights_are_the_average_of_previous_and_tuned(tiny: tuple[Path, Built, Finished, str]) -> None:
    workspace = tiny[0]
    stages = [
        ("base", "trained_on_parity", "wise_ft_after_parity"),
        ("wise_ft_after_parity", "trained_on_parity_then_count", "wise_ft_after_count"),
    ]
    for previous, tuned, merged in stages:
        before, after, result = (load_file(checkpoint(workspace, name) / "model.safetensors") for name in (previous, tuned, merged))
        assert before.keys() == after.keys() == result.keys()
        moved = 0
        for name, tensor in result.items():
            exact = 0.5 * before[name].double() + 0.5 * after[name].double()
            # lerp rounds the difference once and the sum once: two half-ulps of the larger of the two
            bound = 2.0**-23 * torch.maximum(before[name].abs(), after[name].abs()).double()
            assert ((tensor.double() - exact).abs() <= bound).all(), name
            moved += not torch.equal(before[name], after[name])
            if "vision_tower" in name:
                assert torch.equal(before[name], tensor)
        assert moved > 10


def test_checkpoints_load_as_ordinary_hugging_face_directories(tiny: tuple[Path, Built, Finished, str]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    for name in ("base", "trained_on_parity", "wise_ft_after_count"):
        place = checkpoint(tiny[0], name)
        _, report = AutoModelForImageTextToText.from_pretrained(place, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert AutoProcessor.from_pretrained(place).chat_template
    assert {"config.json", "generation_config.json", "tokenizer.json", "processor_config.json", "chat_template.jinja", "README.md"} <= {
        path.name for path in checkpoint(tiny[0], "wise_ft_after_count").iterdir()
    }


def test_every_model_is_asked_the_same_questions(tiny: tuple[Path, Built, Finished, str]) -> None:
    logs = tiny[0] / "runs" / "tiny" / "logs"
    asked = [
        [(row.task, row.key, row.question, row.answer) for row in read_samples(place / "samples.parquet")]
        for place in sorted(logs.iterdir())
    ]
    assert len(asked) == 7
    assert all(questions == asked[0] for questions in asked)
    assert len(asked[0]) == 3 * 8


def test_mlflow_holds_both_tracks_with_the_same_keys(tiny: tuple[Path, Built, Finished, str]) -> None:
    content = tracked(tiny[0])
    assert len(content["runs"]) == 1 + 5 + 5 + 2  # pipeline; pretrain, fine-tunes, merges; evaluations; tracks
    assert {status for _, status in content["runs"]} == {"FINISHED"}
    assert len(content["models"]) == 5
    assert all(count == 1 for *_, count in content["points"])
    keys = {name: {key for run_name, key, *_ in content["points"] if run_name == name} for name in ("before merge", "after merge")}
    assert keys["before merge"] == keys["after merge"]
    assert {"acc/parity", "acc/average", "forgetting/held_out"} <= keys["after merge"]
    assert {step for name, key, step, _ in content["points"] if (name, key) == ("after merge", "acc/average")} == {0, 1, 2}
    assert {step for name, key, step, _ in content["points"] if (name, key) == ("fine-tune stage 1 parity", "train/loss")} == {2, 4, 6, 8}


def test_a_second_run_does_nothing_and_starts_neither_ray_nor_mlflow(tiny: tuple[Path, Built, Finished, str]) -> None:
    workspace, before = tiny[0], tracked(tiny[0])
    for overrides in ((), ("merge.actors=4", "train.gpus=1", "train.workers=2", "evaluate.gpus=1")):
        _, finished, _ = run_tiny(workspace, *overrides)
        assert finished.steps_run == 0
        assert finished.mirrored == tiny[2].mirrored
    assert tracked(workspace) == before


def test_another_alpha_redoes_the_merge_and_what_rests_on_it(tiny: tuple[Path, Built, Finished, str]) -> None:
    built = build(TINY, [f"workspace={tiny[0]}", "alpha=0.3"])
    assert built.name == "tiny-alpha=0.3"
    kept = [step.title for step in plan_steps(built, Store(tiny[0] / "store")) if not step.runs]
    assert kept == [
        "pretrain the digits model, seed 0",
        "evaluate stage 0, base",
        "fine-tune stage 1 parity",
        "evaluate stage 1 parity, before merge",
    ]


def test_a_lost_checkpoint_is_made_again_to_the_same_bytes(tiny: tuple[Path, Built, Finished, str], tmp_path: Path) -> None:
    workspace = tmp_path / "copy"
    shutil.copytree(tiny[0], workspace, symlinks=True)
    expected = final_checkpoint(workspace)
    (checkpoint(workspace, "wise_ft_after_count") / "model.safetensors").unlink()
    _, finished, _ = run_tiny(workspace)
    assert finished.steps_run == 1
    assert final_checkpoint(workspace) == expected


def test_a_report_is_made_from_records_alone(tiny: tuple[Path, Built, Finished, str], tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    report_runs(["tiny"], tiny[0], tmp_path / "again", console)
    first, again = tiny[0] / "runs" / "tiny" / "report", tmp_path / "again"
    assert {path.name: path.read_bytes() for path in first.iterdir() if path.suffix == ".csv"} == {
        path.name: path.read_bytes() for path in again.iterdir() if path.suffix == ".csv"
    }
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        report_runs(["tinny"], tiny[0], None, console)


def test_a_new_database_is_filled_from_records(tiny: tuple[Path, Built, Finished, str], tmp_path: Path) -> None:
    workspace = tmp_path / "copy"
    shutil.copytree(tiny[0], workspace, symlinks=True)
    before = tracked(workspace)
    (workspace / "mlflow.db").unlink()
    for extra in workspace.glob("mlflow.db-*"):
        extra.unlink()
    _, finished, _ = run_tiny(workspace)
    assert finished.steps_run == 0
    assert tracked(workspace) == before


def test_a_stage_that_breaks_leaves_the_rest_standing(tiny: tuple[Path, Built, Finished, str], tmp_path: Path) -> None:
    """A learning rate that makes the loss infinite: one message with step and rate, nothing half-written, other steps stored."""
    workspace = tmp_path / "copy"
    shutil.copytree(tiny[0], workspace, symlinks=True)
    with pytest.raises(InputError, match=r"training broke at step .*1e\+30"):
        run_tiny(workspace, "train.learning_rate=1e30")
    broken = build(TINY, [f"workspace={workspace}", "train.learning_rate=1e30"])
    assert not list(workspace.glob("store/*/checkpoint/.*"))
    assert len(needed(broken.targets, Store(workspace / "store"))) == 8  # pretrain and base evaluation stand
    with sqlite3.connect(workspace / "mlflow.db") as connection:
        name = "tiny-train.learning_rate=1e30"
        assert connection.execute("select status from runs where name = ?", (name,)).fetchall() == [("FAILED",)]


def test_a_second_run_at_the_same_time_is_refused(tiny: tuple[Path, Built, Finished, str]) -> None:
    from filelock import FileLock

    with FileLock(tiny[0] / "runs" / "tiny" / ".lock"), pytest.raises(ResourceError, match="this experiment runs already"):
        run_tiny(tiny[0])


def test_a_local_checkpoint_stands_in_for_the_base(tiny: tuple[Path, Built, Finished, str], tmp_path: Path, database: Path) -> None:
    data = yaml.safe_load(TINY.read_text())
    data |= {
        "base": str(checkpoint(tiny[0], "base")),
        "name": "own_base",
        "workspace": str(tmp_path),
        "recipe": "sequential",
        "tasks": ["parity"],
    }
    for key in ("alpha", "merge"):
        del data[key]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(data))
    built = build(tmp_path / "own.yaml")
    finished = run(built, Console(file=io.StringIO()))
    assert finished.steps_run == 4
    tuned = load_file((tmp_path / "runs/own_base/checkpoints/trained_on_parity").resolve() / "model.safetensors")
    ours = load_file(checkpoint(tiny[0], "trained_on_parity") / "model.safetensors")
    assert all(torch.equal(tuned[name], ours[name]) for name in ours), "the same base by another way gives the same training"


def test_mlp_only_tuning_moves_nothing_else(tiny: tuple[Path, Built, Finished, str], tmp_path: Path) -> None:
    workspace = tmp_path / "copy"
    shutil.copytree(tiny[0], workspace, symlinks=True)
    overrides = ("train.mm_tunable_parts=mm_language_model", "train.mm_language_model_train_mlp_only=true", "tasks=[parity]", "name=mlp")
    built, _, _ = run_tiny(workspace, *overrides)
    room = next(path for path in (workspace / "runs").iterdir() if path.name.startswith("mlp")) / "checkpoints"
    base = load_file((room / "base").resolve() / "model.safetensors")
    merged = load_file((room / "wise_ft_after_parity").resolve() / "model.safetensors")
    moved = {name for name in base if not torch.equal(base[name], merged[name])}
    assert moved
    assert all("language_model" in name and ".mlp." in name for name in moved)
    assert built.milestones[1].model.train.parts == ("language_model.mlp",)  # type: ignore[attr-defined]


def test_the_scores_in_the_report_are_those_of_the_samples(tiny: tuple[Path, Built, Finished, str]) -> None:
    workspace, built, *_ = tiny
    for milestone in built.milestones:
        directory = workspace / "store" / milestone.evaluation.key
        scores = records(workspace)[milestone.evaluation.key]["metrics"]
        rows = read_samples(directory / "samples.parquet")
        for task, score in scores.items():
            assert score["accuracy"] == pytest.approx(np.mean([row.score for row in rows if row.task == task]))


def test_planning_needs_no_heavy_library() -> None:
    import subprocess

    code = (
        "import sys; from pathlib import Path; from pipeline.config.experiment import build\n"
        f"build(Path({str(TINY)!r})).identity\n"
        "heavy = {'torch', 'ray', 'transformers', 'mlflow', 'sklearn', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=TINY.parents[2])


def test_two_training_workers_share_the_batch_and_tell_errors_as_one_does(tiny: tuple[Path, Built, Finished, str], tmp_path: Path) -> None:
    workspace = tmp_path / "copy"
    shutil.copytree(tiny[0], workspace, symlinks=True)
    two = ("train.workers=2", "tasks=[parity]", "train.max_failures=0")
    built, finished, _ = run_tiny(workspace, *two, "train.learning_rate=2e-3", "name=two")
    record = records(workspace)[built.milestones[1].model.key]
    assert finished.steps_run == 5  # another suite: the base is asked again
    assert (record["metrics"]["workers"], record["metrics"]["steps"], record["metrics"]["samples"]) == (2, 8, 64)
    with pytest.raises(InputError, match=r"training broke at step .*1e\+30"):
        run_tiny(workspace, *two, "train.learning_rate=1e30")
