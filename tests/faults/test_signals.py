"""A signal in the middle of training and of a merge: exit code 5 in good time, the checkpoint is whole, and the next run goes on from it.

SIGTERM and SIGINT at any moment are in `tests/pipeline/test_interrupt.py`. SIGUSR1 is the notice that Slurm gives before the time is up
(`--signal=B:USR1@120`), a machine that is about to be taken away sends SIGTERM. `MERGELINE_SIGNALS=all` (`make chaos`) sends each of the
three in training and in a merge; without it, SIGUSR1 comes in training.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tiny_run import TINY, records

from trainers.checkpoints.resume import checkpoints, is_whole

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ALL = os.environ.get("MERGELINE_SIGNALS") == "all"
GRACE_SECONDS = 60
"""Half of what the Slurm recipe gives; it ends in a few seconds where nothing else runs."""
SAVE_STEPS = 10
OPTIONS = ("tasks=[parity]", "held_out=[]", "train.max_steps=300", f"train.save_steps={SAVE_STEPS}", "evaluate.samples=4")


NOTICE = signal.SIGUSR1
"""Slurm's notice that the time is almost up."""


def start(workspace: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "pipeline", "run", str(TINY), f"workspace={workspace}", "--cpus", "2", *OPTIONS]
    return subprocess.Popen(command, cwd=TINY.parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def saved(workspace: Path) -> list[int]:
    """The steps of the stage's checkpoints that are whole."""
    found = [path for work in (workspace / "store").glob("finetune-*/work/checkpoints") for path in checkpoints(work) if is_whole(path)]
    return sorted(int(path.name.rpartition("-")[2]) for path in found)


def training(workspace: Path) -> bool:
    return len(saved(workspace)) > 0


def merging(workspace: Path) -> bool:
    return any(not (place.parent / "record.json").exists() for place in (workspace / "store").glob("merge-*/work"))


def interrupted(workspace: Path, number: signal.Signals, moment: Callable[[Path], bool]) -> float:
    """Start the run, send the signal at the moment; how many seconds it took to end as it should."""
    process = start(workspace)
    deadline = time.monotonic() + 300
    while not moment(workspace) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[1][-3000:]
    below = psutil.Process(process.pid).children(recursive=True)
    sent = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=GRACE_SECONDS)
    seconds = time.monotonic() - sent
    assert process.returncode == 5, errors[-3000:]
    assert number.name in errors
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(below, timeout=90)
    assert not alive
    return seconds


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [NOTICE, *((signal.SIGTERM, signal.SIGINT) if ALL else ())], ids=lambda number: number.name)
def test_a_signal_in_training_and_in_a_merge(tmp_path: Path, number: signal.Signals) -> None:
    in_training = interrupted(tmp_path, number, training)
    kept = saved(tmp_path)
    assert kept, "no checkpoint of the stage outlived the signal"
    assert all(step % SAVE_STEPS == 0 for step in kept)
    print(f"{number.name}: ended {in_training:.1f} s after it came in training, with the checkpoint of step {kept[-1]}")
    if not ALL:
        return
    in_merge = interrupted(tmp_path, number, merging)
    stage = next(json.loads(path.read_text()) for path in (tmp_path / "store").glob("finetune-*/record.json"))
    assert stage["metrics"]["resumed_from_step"] == kept[-1]
    process = start(tmp_path)
    assert process.wait(300) == 0, process.communicate()[1][-3000:]
    assert any(key.startswith("merge-") for key in records(tmp_path))
    assert not list((tmp_path / "store").glob("*/work"))
    print(f"{number.name}: ended {in_merge:.1f} s after it came in a merge; the next run came to its end")
