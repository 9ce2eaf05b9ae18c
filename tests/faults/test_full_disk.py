"""A disk that is really full, at every point of a pipeline: said with what is needed and what is free, and gone on from when there is room.

The disk is a file system in memory of a few megabytes, which takes the right to mount one; training and its checkpoints are filled up by a
limit on file sizes in `tests/trainers/test_stage_disk.py`.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import ended
from crash_points import pipeline, result, run
from safetensors import SafetensorError
from safetensors.torch import save_file

from foundation.errors import ResourceError
from foundation.files import directory_manifest
from pipeline.graph.history import HistoryLog, read_history
from pipeline.plan import needed
from pipeline.store import Store

FULL = "No space left on device"
PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with 4 MB of room; `resize` gives it more."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def resize(disk: Path, megabytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(disk)], check=True)


def fill(disk: Path, leaving: int) -> Path:
    """Take up the disk's room but for so many pages."""
    filler = disk / "filler"
    with open(filler, "wb") as file:
        while shutil.disk_usage(disk).free > leaving * PAGE:
            file.write(bytes(PAGE))
            file.flush()
    return filler


def test_a_disk_that_is_full_at_any_page_costs_a_message(disk: Path, tmp_path: Path) -> None:
    """The pipeline takes some 35 pages; it is run with 0, 1, 2, ... of them free, and each time again with room."""
    run(tmp_path / "whole")
    expected, said, others = result(tmp_path / "whole"), list[str](), list[str]()
    for leaving in range(1000):
        store = disk / "store"
        filler = fill(disk, leaving)
        try:
            run(store)
        except ResourceError as error:
            said.append(str(error))
        except (OSError, SafetensorError) as error:  # the test's own steps write as libraries do
            others.append(str(error))
        else:
            filler.unlink()
            break
        begun = {step.key for step in needed(pipeline(), Store(store)).values()}
        assert begun, "what is needed is still known"
        filler.unlink()
        run(store)
        assert result(store) == expected, leaving
        assert not [path for path in store.rglob("*") if path.name.endswith(".tmp") or path.name == "work"], leaving
        shutil.rmtree(store)
        (disk / "store.started").unlink(missing_ok=True)
    print(f"full disk: {len(said) + len(others)} sizes that were too small, each went on to the same bytes")
    assert len(said) > 10
    assert len(others) > 10
    assert all(re.search(r"[\d,]+ bytes.*[\d,]+ (bytes )?are free", text) for text in said), said
    assert all(FULL in text for text in others), others


@pytest.fixture
def checkpoints(tmp_path: Path) -> list[Path]:
    """Two checkpoints of 6 MB."""
    for seed in range(2):
        (tmp_path / f"c{seed}").mkdir()
        tensors = {f"layer.{n}.weight": torch.full((512, 256), float(seed + n)) for n in range(12)}
        save_file(tensors, tmp_path / f"c{seed}" / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / f"c{seed}" / "config.json").write_text('{"model_type": "llama"}')
    return [tmp_path / "c0", tmp_path / "c1"]


def test_a_merge_on_a_full_disk(
    disk: Path, checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = ("merge", "--checkpoints", *checkpoints, "--processes", "1", "--output")
    assert ended(capsys, *arguments, tmp_path / "whole").code == 0
    before_work = ended(capsys, *arguments, disk / "out")
    assert before_work.code == 4
    assert re.search(r"has 4.19 MB free, the merge writes 6.29 MB", before_work.err), before_work.err
    assert list(disk.iterdir()) == []

    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:  # as if the room were taken by somebody else after the plan was made
        patch.setattr("mergers.checks.shutil.disk_usage", lambda place: usage)
        meanwhile = ended(capsys, *arguments, disk / "out")
    assert meanwhile.code == 4
    assert re.search(rf"writing [\d,]+ bytes to {disk}\S* failed: {FULL}, [\d,]+ bytes are free; free space there", meanwhile.err)
    assert list(disk.iterdir()) == [], "what was begun is removed, and gives its room back"

    resize(disk, 64)
    assert ended(capsys, *arguments, disk / "out").code == 0
    assert directory_manifest(disk / "out") == directory_manifest(tmp_path / "whole")


def train(log: HistoryLog) -> None:
    for step in range(1, 500):
        log(step, {"train/loss": 1 / step})


def test_the_points_of_a_stage_on_a_full_disk(disk: Path) -> None:
    """The stage stops; when it goes on it says the same points again, and none is lost or doubled."""
    path = disk / "history.jsonl"
    log = HistoryLog(path, "finetune-x")
    log(1, {"train/loss": 0.5})
    filler = fill(disk, 0)
    with pytest.raises(OSError, match=FULL):
        train(log)
    written = len(list(read_history(path)))
    assert 1 <= written < 499
    filler.unlink()
    again = HistoryLog(path, "finetune-x")
    train(again)
    assert [point.step for point in read_history(path)] == list(range(1, 500))
