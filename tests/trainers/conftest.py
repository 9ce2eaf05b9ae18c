"""What the trainers' tests share: a tiny base checkpoint and a short stage that starts from it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.digits_llava import digits_llava, digits_processor
from models.load import save_checkpoint
from tasks.digits import all_texts
from tasks.registry import get_task
from trainers.spec import TrainSpec
from trainers.train import StageResult, train_stage

SPEC = TrainSpec(
    parts=("language_model.mlp", "projector"), learning_rate=1e-3, max_steps=7, samples=20, batch_size=8, save_steps=2, log_steps=3
)
"""Seven steps over two whole batches an epoch: epochs end within a log window, and checkpoints at steps 2, 4 and 6 cut windows."""

Stage = Callable[..., StageResult]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained digits model as a checkpoint."""
    directory = tmp_path_factory.mktemp("checkpoints") / "base"
    save_checkpoint(digits_llava(seed=0), digits_processor(all_texts()), directory)
    return directory


@pytest.fixture
def spec() -> TrainSpec:
    """How the short stages learn."""
    return SPEC


@pytest.fixture
def stage(base: Path, tmp_path: Path) -> Stage:
    """Runs a stage named `name` with changed fields of SPEC; output in tmp_path / name, checkpoints in tmp_path / "name-work"."""

    def run(name: str, on_log: Any = None, start: Path = base, strategy: Any = None, **changes: Any) -> StageResult:
        spec = replace(SPEC, **changes)
        return train_stage(start, get_task("parity"), spec, tmp_path / name, tmp_path / f"{name}-work", on_log, strategy)

    return run
