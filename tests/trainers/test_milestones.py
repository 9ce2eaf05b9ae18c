"""Milestones: what a stage would have written had it ended there; written once, and the stage learns on as if they were not."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from foundation.errors import ConfigError
from foundation.files import directory_manifest
from models.load import load_model
from tasks.registry import get_task
from trainers.checkpoints.milestones import milestone_directory, random_numbers_kept
from trainers.checkpoints.resume import checkpoints
from trainers.spec import TrainSpec
from trainers.strategies.fine_tuning import FineTuning
from trainers.strategies.lora import LoRA
from trainers.strategy import Adaptation, Context
from trainers.train import StageResult, train_stage

Stage = Callable[..., StageResult]
SPEC = TrainSpec(
    parts=("language_model.mlp", "projector"), learning_rate=1e-3, max_steps=7, samples=20, batch_size=8, save_steps=2, log_steps=3
)
"""As in conftest.py, for the fixture that all tests share."""


class CrashError(Exception):
    """Thrown in the middle of a stage."""


class Crash(TrainerCallback):
    """Throws at the beginning of step number `at` + 1."""

    def __init__(self, at: int | None) -> None:
        self.at = at

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Throw where it is time."""
        if state.global_step == self.at:
            raise CrashError


@dataclass(frozen=True)
class Crashing(FineTuning):
    """Plain fine-tuning that crashes after a step's checkpoint; the step is no part of what the stage is."""

    at: int | None = field(default=None, repr=False)

    def start(self, model: Any, context: Context) -> Adaptation:
        """Freeze as FineTuning does."""
        return replace(super().start(model, context), callbacks=(Crash(self.at),))


@dataclass(frozen=True)
class Finishing(FineTuning):
    """Plain fine-tuning that shifts a weight at the end, draws random numbers at the start, and writes a file of its own."""

    def start(self, model: Any, context: Context) -> Adaptation:
        """Freeze as FineTuning does."""
        torch.rand(3), np.random.rand(3)
        seen: list[float] = []

        def finish(model: Any) -> Any:
            with torch.no_grad():
                bias = model.model.multi_modal_projector.linear_2.bias.add_(1.0)
            seen.append(bias.sum().item())
            return model

        return replace(super().start(model, context), finish=finish, extras=lambda place: (place / "sum.txt").write_text(str(seen[-1])))


CONSTANT = {"schedule": "constant", "warmup_ratio": 0}
"""With these a stage begins as a shorter one does, so what the shorter one writes is what its milestone must be."""


@pytest.mark.parametrize(
    "strategy", [FineTuning(), LoRA(rank=4, dropout=0.1, keep_adapter=True), Finishing()], ids=lambda each: type(each).__name__
)
def test_it_is_what_the_stage_would_have_written_had_it_ended_there(stage: Stage, tmp_path: Path, strategy: Any) -> None:
    """And the stage learns on as if it had written nothing, its random numbers (LoRA's dropout) included."""
    stage("plain", strategy=strategy, **CONSTANT)
    stage("marked", strategy=strategy, milestones=(7, 3), **CONSTANT)
    stage("short", strategy=strategy, max_steps=3, **CONSTANT)
    plain, short = directory_manifest(tmp_path / "plain"), directory_manifest(tmp_path / "short")
    assert directory_manifest(tmp_path / "marked") == directory_manifest(milestone_directory(tmp_path / "marked", 7)) == plain != short
    assert directory_manifest(tmp_path / "marked-step-3") == short
    load_model(tmp_path / "marked-step-3")


@pytest.fixture(scope="module")
def whole(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed stage with milestones at all steps but one."""
    place = tmp_path_factory.mktemp("whole")
    train_stage(base, get_task("parity"), replace(SPEC, milestones=(1, 3, 4, 5, 6)), place / "out", place / "work", strategy=Crashing())
    return place


def written(place: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in place.iterdir()}


def test_a_resumed_stage_writes_only_what_is_missing(stage: Stage, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(CrashError):
        stage("parts", strategy=Crashing(5), milestones=(1, 3))
    before = written(tmp_path / "parts-step-3")
    assert stage("parts", strategy=Crashing(), milestones=(1, 3, 6)).resumed_from_step == 4  # one came in on the way
    assert written(tmp_path / "parts-step-3") == before
    for step in (1, 3, 6):
        assert directory_manifest(tmp_path / f"parts-step-{step}") == directory_manifest(whole / f"out-step-{step}"), step


def cut(place: Path) -> None:
    (place / "model.safetensors").write_bytes(b"")


@pytest.mark.parametrize(("harm", "lost", "resumed_from"), [(shutil.rmtree, 5, 4), (cut, 4, 0)])
def test_a_lost_milestone_is_made_again_from_before_it(
    stage: Stage, whole: Path, tmp_path: Path, harm: Callable[[Path], None], lost: int, resumed_from: int
) -> None:
    """Checkpoints are left of steps 4 and 6; that of step 4 was written after its milestone."""
    with pytest.raises(CrashError):
        stage("parts", strategy=Crashing(6), milestones=(3, 4, 5))
    assert [path.name for path in checkpoints(tmp_path / "parts-work")] == ["checkpoint-4", "checkpoint-6"]
    before = written(tmp_path / "parts-step-3")
    harm(tmp_path / f"parts-step-{lost}")
    assert stage("parts", strategy=Crashing(), milestones=(3, 4, 5)).resumed_from_step == resumed_from
    assert written(tmp_path / "parts-step-3") == before
    for name in ("", "-step-3", "-step-4", "-step-5"):
        assert directory_manifest(tmp_path / f"parts{name}") == directory_manifest(whole / f"out{name}")


def test_another_stage_s_milestone_is_not_taken(stage: Stage, tmp_path: Path) -> None:
    """The same output once more with another rate and a work directory of its own: what lies there is written over."""
    stage("again", milestones=(2,), max_steps=3)
    old = directory_manifest(tmp_path / "again-step-2")
    shutil.rmtree(tmp_path / "again-work")
    stage("again", milestones=(2,), max_steps=3, learning_rate=5e-4)
    stage("fresh", milestones=(2,), max_steps=3, learning_rate=5e-4)
    assert directory_manifest(tmp_path / "again-step-2") == directory_manifest(tmp_path / "fresh-step-2") != old


def test_one_beyond_the_last_step_is_refused_first(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="milestones name step 8, 100, but the stage ends after step 7"):
        stage("never", milestones=(100, 1, 8), max_steps=None, epochs=3.5)
    assert not list(tmp_path.iterdir())


def test_random_numbers_are_kept() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    expected = torch.rand(2), np.random.rand(2)
    torch.manual_seed(1)
    np.random.seed(1)
    with random_numbers_kept():
        torch.manual_seed(5), torch.rand(7), np.random.rand(7)
    assert torch.equal(torch.rand(2), expected[0])
    assert np.array_equal(np.random.rand(2), expected[1])
