"""Tiny random models, and the demo's own model saved as a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TINY

from models.digits_llava import digits_llava, digits_processor
from models.load import save_checkpoint

CORPUS = ["Which digit is shown?", "Where is the digit?", "three", "seven", "top left", "red three, nothing, blue seven, nothing", "4 7"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def processor() -> Any:
    return digits_processor(CORPUS)


@pytest.fixture(scope="session")
def tiny() -> dict[str, Callable[[], Any]]:
    return TINY


@pytest.fixture
def checkpoint(tmp_path: Path, processor: Any) -> Path:
    directory = tmp_path / "checkpoint"
    save_checkpoint(digits_llava(0), processor, directory)
    return directory
