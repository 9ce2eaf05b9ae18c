"""A disk that fills up under a stage: said in bytes, nothing harmed, and the stage goes on when there is room."""

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from foundation.errors import ResourceError
from foundation.files import directory_manifest
from trainers.checkpoints.disk import room_for
from trainers.checkpoints.resume import checkpoints, is_whole
from trainers.train import StageResult

Stage = Callable[..., StageResult]


class Usage(NamedTuple):
    """What shutil.disk_usage gives."""

    total: int
    used: int
    free: int


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def sizes(checkpoint: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in checkpoint.iterdir()}


def test_a_checkpoint_that_cannot_be_written(stage: Stage, tmp_path: Path) -> None:
    """The limit lies between the trained weights and the optimizer's state: the checkpoint of step 2 stays half-written, and goes."""
    stage("whole")
    held = sizes(tmp_path / "whole-work" / "checkpoint-6")
    with (
        files_of_at_most((held["model.safetensors"] + held["optimizer.pt"]) // 2),
        pytest.raises(ResourceError, match=r"no room to write a checkpoint of the stage to .*: it needs [\d,]+ bytes, [\d,]+ are free"),
    ):
        stage("full")
    assert checkpoints(tmp_path / "full-work") == []
    assert not (tmp_path / "full").exists()
    assert stage("full").resumed_from_step == 0
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "full")


def test_an_output_that_cannot_be_written(stage: Stage, tmp_path: Path) -> None:
    """The output is larger than any file of a checkpoint: the stage learns to its end, and later goes on from its last checkpoint."""
    stage("whole")
    held = sizes(tmp_path / "whole-work" / "checkpoint-6")
    size = (tmp_path / "whole" / "model.safetensors").stat().st_size
    assert max(held.values()) < size
    with files_of_at_most((max(held.values()) + size) // 2), pytest.raises(ResourceError, match=r"the checkpoint full to .*File too large"):
        stage("full")
    assert [path.name for path in tmp_path.iterdir() if "full" in path.name] == ["full-work"]
    assert all(is_whole(path) for path in checkpoints(tmp_path / "full-work"))
    assert stage("full").resumed_from_step == 6
    assert directory_manifest(tmp_path / "whole") == directory_manifest(tmp_path / "full")


def test_too_little_room_is_refused_before_anything_is_written(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(2**40, 2**40 - 1000, 1000))
    with pytest.raises(ResourceError, match=r"it needs [\d,]+ bytes, 1,000 are free; make room and run again"):
        stage("full")
    assert list((tmp_path / "full-work").iterdir()) == []


def save_tensor(path: Path) -> None:
    save_file({"weight": torch.zeros(2**18)}, path)


@pytest.mark.parametrize(
    "write", [lambda path: torch.save(torch.zeros(2**18), path), save_tensor, lambda path: path.write_bytes(bytes(2**20))]
)
def test_each_writer_s_words_are_understood(tmp_path: Path, write: Callable[[Path], Any]) -> None:
    tidied: list[bool] = []
    with (
        files_of_at_most(2**16),
        pytest.raises(ResourceError, match="no room to write it to"),
        room_for(1, tmp_path, "it", lambda: tidied.append(True)),
    ):
        write(tmp_path / "file")
    assert tidied


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="something else"), room_for(1, tmp_path, "it"):
        raise RuntimeError("something else")
    with pytest.raises(PermissionError), room_for(1, tmp_path, "it"):
        raise PermissionError(os.EX_NOPERM, "no")
