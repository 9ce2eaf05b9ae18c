"""`kill -9` at random times, of the whole process tree or of Ray's own processes below the command: the same command again ends with the
same bytes and the same MLflow content. Where Ray is gone, the command itself says so and ends, in under a minute.

`MERGELINE_KILLS` kills are spread over runs of five (default 2; `make chaos` does 100). The undisturbed run is made in the same test.
"""

import os
import random
import shutil
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
KILLS_PER_RUN = 5
LONGEST_SECONDS = 400
LONGEST_END = 60
PARTS = ("raylet", "gcs_server")
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


def kill_part(process: subprocess.Popen, name: str, log: Path) -> float | None:
    """SIGKILL the part of Ray that is called `name`; how many seconds the command took to end, with a message and no process left.

    None where all steps were done by then, and it came to its end without Ray.
    """
    tree = psutil.Process(process.pid).children(recursive=True)
    part = next((each for each in tree if name_of(each) == name), None)
    assert part is not None, f"no {name} below the command"
    said_before, began = log.stat().st_size, time.monotonic()
    part.kill()
    if process.wait(LONGEST_END) == 0:
        return None
    assert process.returncode in (4, 5), log.read_text()[-3000:]
    seconds = time.monotonic() - began
    told = log.read_text()[said_before:]
    assert "error: " in told, told[-3000:]
    assert "run the same command again" in told, told[-3000:]
    _, alive = psutil.wait_procs(tree, timeout=2 * LONGEST_END)  # without its head, what is left of Ray ends itself after a minute
    assert not alive
    return seconds


def name_of(process: psutil.Process) -> str:
    """Its program's name; empty if it ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        return process.name()
    return ""


def is_up(process: subprocess.Popen) -> bool:
    """Whether all parts of Ray run below the command."""
    return {"raylet", "gcs_server"} <= {name_of(each) for each in psutil.Process(process.pid).children(recursive=True)}


def finish(workspace: Path) -> None:
    process = start(workspace)
    assert process.wait(LONGEST_SECONDS) == 0, workspace.with_suffix(".log").read_text()[-3000:]


def disturbed(workspace: Path, kills: int, chance: random.Random, length: float) -> tuple[list[tuple], list[float]]:
    """Run the experiment and kill it so often at random moments, then let it end: what was killed, after how many seconds and with how many
    steps stored, and the seconds that the command took to end without Ray."""
    deaths, ends = [], []
    for number in range(kills):
        if number >= 2 and len(records(workspace)) >= LATEST:
            break  # little is left: the kills that remain are for another run
        process, wait, began = start(workspace), chance.uniform(0.1, 0.6) * length, time.time()
        what = chance.choice(PARTS) if number % 2 else "all"
        while process.poll() is None and (
            (time.time() - began < wait and len(records(workspace)) < LATEST) or (what in PARTS and not is_up(process))
        ):
            time.sleep(0.05)  # until then, or until little is left to do: this run may be faster than the first one
        if process.poll() is not None:
            break  # it was done before it could be killed
        death = (what, round(time.time() - began, 1), len(records(workspace)))
        if what in PARTS:
            if (seconds := kill_part(process, what, workspace.with_suffix(".log"))) is None:
                break
            ends.append(round(seconds, 1))
        else:
            kill_tree(process)
        deaths.append(death)
    finish(workspace)
    return deaths, ends


def assert_same(killed: Path, whole: Path) -> None:
    """The same bytes, the same content of MLflow, and nothing left behind."""
    assert final_checkpoint(killed) == final_checkpoint(whole)
    ours, theirs = records(killed), records(whole)
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert ours[key]["outputs"]["digest"] == theirs[key]["outputs"]["digest"], key
    assert tracked(killed) == tracked(whole)
    assert not list((killed / "store").glob("*/work"))
    assert not list((killed / "store").glob("*/.*.tmp"))


@pytest.mark.timeout(LONGEST_SECONDS * (2 * KILLS + 3))
def test_killed_anywhere_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    whole, chance = tmp_path / "whole", random.Random(SEED)
    began = time.time()
    finish(whole)
    length = time.time() - began
    killed, longest = 0, 0.0
    while killed < KILLS:
        workspace = tmp_path / f"killed-{killed}"
        deaths, ends = disturbed(workspace, min(KILLS_PER_RUN, KILLS - killed), chance, length)
        print(f"seed {SEED}: killed (what, after seconds, steps stored) {deaths}; without Ray it ended in {ends} s", flush=True)
        assert deaths
        assert_same(workspace, whole)
        killed, longest = killed + len(deaths), max([longest, *ends])
        shutil.rmtree(workspace)
    print(
        f"{killed} of {killed} kills of a run of {length:.0f} s ended with the same bytes; without Ray it ended in {longest:.0f} s at most"
    )
