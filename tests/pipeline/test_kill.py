"""`kill -9` of the whole process tree at random times: running the same command again ends with the same bytes and the same MLflow content.

`MERGELINE_KILLS` kills are spread over one run (default 2; `make chaos` does more). The undisturbed run is made in the same test.
"""

import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tiny_run import TINY, final_checkpoint, records, tracked

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

KILLS = int(os.environ.get("MERGELINE_KILLS", "2"))
SEED = int(os.environ.get("MERGELINE_KILL_SEED", str(random.SystemRandom().randrange(10**6))))
LONGEST_SECONDS = 400
LATEST = 8
"""Of the ten steps, so many are stored at most when the first kill comes."""


def start(workspace: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "pipeline", "run", str(TINY), f"workspace={workspace}", "--cpus", "2"]
    log = open(workspace.with_suffix(".log"), "a")  # noqa: SIM115 (handed to the process)
    return subprocess.Popen(command, cwd=TINY.parents[2], stdout=log, stderr=subprocess.STDOUT, start_new_session=True)


def kill_tree(process: subprocess.Popen) -> int:
    """SIGKILL the process and everything below it; how many that were. All are stopped first, so that nothing starts a child meanwhile."""
    tree = [psutil.Process(process.pid)]
    for parent in tree:  # grows while it is walked
        with suppress(psutil.NoSuchProcess):
            parent.suspend()
            tree += [child for child in parent.children() if child not in tree]
    for member in tree:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait(30)
    return len(tree)


def finish(workspace: Path) -> None:
    process = start(workspace)
    assert process.wait(LONGEST_SECONDS) == 0, workspace.with_suffix(".log").read_text()[-3000:]


@pytest.mark.timeout(LONGEST_SECONDS * (KILLS + 3))
def test_killed_anywhere_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.time()
    finish(whole)
    length = time.time() - began

    chance = random.Random(SEED)
    deaths = []
    for _ in range(KILLS):
        process, wait, began = start(killed), chance.uniform(0.1, 0.6) * length, time.time()
        while time.time() - began < wait and len(records(killed)) < LATEST and process.poll() is None:
            time.sleep(0.05)  # until then, or until little is left to do: this run may be faster than the first one
        if process.poll() is not None:
            break  # it was done before it could be killed
        deaths.append((round(time.time() - began, 1), kill_tree(process), len(records(killed))))
    print(f"seed {SEED}: killed after (seconds, processes, steps stored) {deaths} of an undisturbed {length:.0f} s")
    finish(killed)

    assert deaths
    assert final_checkpoint(killed) == final_checkpoint(whole)
    ours, theirs = records(killed), records(whole)
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert ours[key]["outputs"]["digest"] == theirs[key]["outputs"]["digest"], key
    assert tracked(killed) == tracked(whole)
    assert not list((killed / "store").glob("*/work"))
    assert not list((killed / "store").glob("*/.*.tmp"))
