"""From file and overrides to a run: its name tells what was changed, and what is the same keeps its fingerprint."""

from pathlib import Path

import pytest
import torch
import yaml
from commands import COMPARE, EXPERIMENT, changed
from safetensors.torch import save_file

from pipeline.config.experiment import Built, build
from pipeline.recipes.milestone import Role

EXECUTION = ["merge.actors=0", "evaluate.gpus=0.5", "train.gpus=1", "train.workers=2", "train.max_failures=0", "train.save_steps=4"]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    return tmp_path / "e.yaml"


def fingerprints(built: Built) -> dict[tuple[int, str], dict[str, str]]:
    """(stage, role) -> fingerprints of the model and of its evaluation."""
    return {
        (milestone.stage, milestone.role.value): {"model": milestone.model.fingerprint, "evaluation": milestone.evaluation.fingerprint}
        for milestone in built.milestones
    }


def test_an_override_that_changes_what_is_made_shows_in_the_name(file: Path) -> None:
    assert build(file).name == "small"
    assert build(file, ["alpha=0.3"]).name == "small-alpha=0.3"
    assert build(file, ["alpha=0.3", "seed=1"]).name == "small-alpha=0.3-seed=1"
    assert build(file, ["tasks=[count, parity]"]).name == "small-tasks=_count_parity_"


@pytest.mark.parametrize("override", [*EXECUTION, "alpha=0.5", "workspace=elsewhere"])
def test_an_override_that_only_says_how_to_run_does_not(file: Path, override: str) -> None:
    assert build(file, [override]).name == "small"


def test_an_override_given_twice_shows_as_the_one_that_holds(file: Path) -> None:
    assert build(file, ["alpha=0.3", "alpha=0.3"]).name == "small-alpha=0.3"
    assert build(file, ["alpha=0.4", "alpha=0.3"]).name == "small-alpha=0.3"
    assert build(file, ["train={samples: 64, max_steps: 9, batch_size: 8}", "train.max_steps=9"]).name == "small-train.max_steps=9"


def test_a_name_is_never_too_long_for_a_directory_and_still_tells_runs_apart(file: Path) -> None:
    names = {build(file, [f"{key}={value}" for key in LONG]).name for value in (0.25, 0.125)}
    assert len(names) == 2
    assert max(map(len, names)) <= 120


LONG = ["alpha", "train.weight_decay", "train.warmup_ratio", "train.max_grad_norm", "train.learning_rate", "train.epochs"] * 2


def test_another_alpha_keeps_what_came_before_the_first_merge(file: Path) -> None:
    before, after = fingerprints(build(file)), fingerprints(build(file, ["alpha=0.3"]))
    same = {place for place in before if before[place] == after[place]}
    assert same == {(0, "base"), (1, "before")}  # the base, its evaluation, the first fine-tune and its evaluation
    for place in before.keys() - same:
        assert before[place]["model"] != after[place]["model"]
        assert before[place]["evaluation"] != after[place]["evaluation"]


@pytest.mark.parametrize("override", EXECUTION)
def test_how_it_runs_changes_no_fingerprint(file: Path, override: str) -> None:
    assert fingerprints(build(file)) == fingerprints(build(file, [override]))


@pytest.mark.parametrize("override", ["seed=1", "evaluate.samples=9", "train.max_steps=9", "train.threads=2", "tasks=[count, parity]"])
def test_what_is_made_changes_the_identity(file: Path, override: str) -> None:
    assert build(file).identity != build(file, [override]).identity


def test_the_same_experiment_from_another_directory_is_the_same(file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "renamed.yaml"
    moved.write_text("# a comment\n" + EXPERIMENT.replace("alpha: 0.5\n", "") + "alpha: 0.5\n")
    assert build(moved).identity == build(file).identity


@pytest.mark.parametrize("overrides", [[], ["alpha=0.3"], ["alpha=0.3", "merge.actors=0"]])
def test_the_file_a_run_keeps_leads_to_that_run(file: Path, tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(file, overrides)
    directory = built.run_directory
    kept = tmp_path / "kept.yaml"
    kept.write_text(yaml.safe_dump(built.resolved, sort_keys=False))
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    again = build(kept)
    assert (again.name, again.identity, again.run_directory) == (built.name, built.identity, directory)
    assert again.config.tracking.experiment == "small"


def test_the_file_a_run_keeps_finds_a_local_base_from_anywhere(file: Path, tmp_path: Path) -> None:
    base = tmp_path / "start"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    save_file({"weight": torch.zeros(2)}, base / "model.safetensors")
    file.write_text("\n".join("base: start" if line.startswith("base:") else line for line in EXPERIMENT.splitlines()))
    assert build(file).resolved["base"] == str(base)


def test_a_comparison_builds_each_shared_step_once(file: Path) -> None:
    file.write_text(COMPARE)
    built = build(file)
    kinds = [step.kind for step in built.steps]
    assert kinds.count("pretrain") == 2  # one per seed, not per arm
    assert kinds.count("finetune") == 2 * (1 + 2)  # the first stage is shared by both arms
    assert kinds.count("merge") == 2 * 2
    assert [milestone.role for milestone in built.milestones].count(Role.BASE) == 4


def test_building_writes_nothing(file: Path, tmp_path: Path) -> None:
    build(file, ["alpha=0.3"])
    assert [path.name for path in tmp_path.iterdir()] == ["e.yaml"]


def test_a_changed_line_changes_nothing_else(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(changed("name: small", "name: renamed"))
    assert build(other).identity == build(file).identity
    assert build(other).name == "renamed"
