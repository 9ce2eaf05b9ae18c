"""The commands that a command prints to go on with: what one would type, with the Ray and the overrides that it was given."""

import shlex
from pathlib import Path

import pytest
from answered_run import answered_run
from commands import EXPERIMENT, ended
from rich.console import Console
from small_merges import save_random

from pipeline.command.search import next_command
from pipeline.command.summary import print_finished
from pipeline.config.experiment import build
from pipeline.runner import Finished


def test_a_run_names_the_ray_that_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a space").mkdir()
    answered_run(tmp_path / "a space", EXPERIMENT, lambda at, example: example.answer, 8)
    built = build(tmp_path / "a space" / "runs" / "small" / "experiment.yaml")
    typed = ["small.yaml", f"workspace={tmp_path / 'a space'}", "alpha=0.5"]

    def last(*options: str) -> list[str]:
        print_finished(built, Finished(0, built.run_directory / "report", None), Console(width=100), typed, options)
        return shlex.split(capsys.readouterr().out.splitlines()[-1].partition("   (")[0])

    same = ["small.yaml", typed[1], "alpha=0.3"]
    assert last() == ["next", "python", "-m", "pipeline", "run", *same]
    assert last("--address", "auto", "--cpus", "2") == [
        "next",
        "python",
        "-m",
        "pipeline",
        "run",
        *same,
        "--address",
        "auto",
        "--cpus",
        "2",
    ]
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert last() == ["next", "python", "-m", "pipeline", "submit", *same]


def test_options_of_run_reach_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answered_run(tmp_path, EXPERIMENT, lambda at, example: example.answer, 8)
    file = tmp_path / "runs" / "small" / "experiment.yaml"
    report = tmp_path / "runs" / "small" / "report"
    monkeypatch.setattr("pipeline.runner.run", lambda *_: Finished(0, report, None))  # what it prints is asked here, not what it does
    told = ended(capsys, "run", file, "--cpus", 2)
    assert told.code == 0, told.said
    assert "alpha=0.3 --cpus 2   (" in told.out


def test_a_plan_of_a_merge_keeps_what_was_laid_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b c")):
        save_random(tmp_path / name, seed)
    (tmp_path / "my merge.yaml").write_text("method: weighted_average\nsources: {a: a, b: b c}\n")
    planned = ended(capsys, "plan", "my merge.yaml", "dtype=bfloat16")
    assert planned.code == 0, planned.said
    following = shlex.split(planned.out.splitlines()[-1].removeprefix("next: python -m pipeline "))
    merged = ended(capsys, *following)
    assert merged.code == 0, merged.said
    assert "torch.bfloat16" in planned.out or "bfloat16" in planned.out
    assert shlex.split(merged.out.splitlines()[-1])[-1] == "my merge-merged"
    assert (tmp_path / "my merge-merged" / "model.safetensors").stat().st_size < (tmp_path / "a" / "model.safetensors").stat().st_size


def test_a_search_names_the_ray_and_quotes() -> None:
    command = next_command(Path("my file.yaml"), ["alpha=0.9", "tasks=[a, b]"], 0.25, ["--address", "auto"])
    told = ["python", "-m", "pipeline", "run", "my file.yaml", "tasks=[a, b]", "alpha=0.25", "--address", "auto"]
    assert shlex.split(command) == told
    hidden = next_command(Path("e.yaml"), ["tracking.uri=http://ann:hunter2@mlflow"], 0.25, [])
    assert "hunter2" not in hidden
