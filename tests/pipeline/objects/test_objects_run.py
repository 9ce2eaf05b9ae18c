"""A whole run whose workspace is lost each time its driver is killed, as when every driver is a new machine: the object store has it all.

`MERGELINE_OBJECT_KILLS` kills (`make chaos`: 5) at random moments, `MERGELINE_KILL_SEED` as in `test_kill.py`.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from objects_server import Fault, Objects, proxied, variables

from foundation.files import directory_manifest
from pipeline.objects.bucket import open_bucket

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TINY = Path(__file__).parents[1] / "tiny.yaml"
KILLS = int(os.environ.get("MERGELINE_OBJECT_KILLS", "0"))
SEED = int(os.environ.get("MERGELINE_KILL_SEED", str(random.SystemRandom().randrange(10**6))))
LONGEST_SECONDS = 300
in_chaos = pytest.mark.skipif(not KILLS, reason="several whole runs: MERGELINE_OBJECT_KILLS=5, as in `make chaos`")
OPTIONS = ("tasks=[parity]", "held_out=[]", "tracking.wait=0", "--cpus", "2")


@pytest.fixture(autouse=True)
def room_for_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A temporary directory of its own: what is killed does not tidy up. Short, for Ray makes sockets in it."""
    with tempfile.TemporaryDirectory(prefix="obj", dir="/tmp", ignore_cleanup_errors=True) as place:
        monkeypatch.setenv("TMPDIR", place)
        yield


def start(workspace: Path, uri: str, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline", "run", str(TINY), f"workspace={workspace}", f"objects={uri}", *more, *OPTIONS]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def finish(workspace: Path, uri: str) -> str:
    process = start(workspace, uri)
    said, _ = process.communicate(timeout=LONGEST_SECONDS)
    assert process.returncode == 0, said[-3000:]
    return said


def kill_tree(process: subprocess.Popen[str]) -> None:
    """SIGKILL the process and all below it, each stopped first, so that nothing starts a child meanwhile."""
    tree = [psutil.Process(process.pid)]
    for parent in tree:  # grows while it is walked
        try:
            parent.suspend()
            tree += [child for child in parent.children() if child not in tree]
        except psutil.NoSuchProcess:
            continue
    for member in tree:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.communicate()


def stored(uri: str) -> dict[str, str]:
    """Step key -> attempt of every record."""
    names = [name.split("/") for name in open_bucket(uri).sizes("store")]
    keys = [parts[1] for parts in names if parts[-1] == "record.json"]
    attempts = {key: {parts[2] for parts in names if parts[1] == key} - {"record.json"} for key in keys}
    assert all(len(found) <= 1 for found in attempts.values()), attempts  # nothing of other attempts is left
    return {key: next(iter(found), "") for key, found in attempts.items()}


def checkpoint(workspace: Path, uri: str) -> dict[str, str]:
    """Name -> SHA-256 of the files of the merge, from the object store."""
    (key,) = (key for key in stored(uri) if key.startswith("merge-"))
    prefix = f"store/{key}/{stored(uri)[key]}/checkpoint"
    for name in open_bucket(uri).sizes(prefix):
        open_bucket(uri).download(name, workspace / "taken" / name.removeprefix(f"{prefix}/"))
    return directory_manifest(workspace / "taken")


@in_chaos
@pytest.mark.timeout(LONGEST_SECONDS * (KILLS + 3))
def test_killed_drivers_whose_machines_are_gone(tmp_path: Path, objects: str) -> None:
    began = time.monotonic()
    finish(tmp_path / "whole", objects)
    seconds, wanted = time.monotonic() - began, checkpoint(tmp_path / "whole", objects)
    uri, chance = f"{objects}-killed", random.Random(SEED)
    print("seed", SEED)
    done: dict[str, str] = {}
    for number in range(KILLS):
        workspace = tmp_path / f"machine{number}"
        process = start(workspace, uri)
        time.sleep(seconds * chance.uniform(0.2, 0.9))
        kill_tree(process)
        shutil.rmtree(workspace, ignore_errors=True)
        now = stored(uri)
        assert now.items() >= done.items()  # what was stored stays, and is not made again
        done = now
    said = finish(tmp_path / "last", uri)
    assert f"{len(stored(objects)) - len(done)} of {len(stored(objects))} steps to run" in said
    assert checkpoint(tmp_path / "last", uri) == wanted
    assert stored(uri).items() >= done.items()
    assert list(tmp_path.glob("last/runs/*/report/report.md"))
    assert not [name for name in open_bucket(uri).sizes("store") if "/work/" in name]


@in_chaos
def test_two_drivers_with_their_own_workspaces_do_each_step_once(tmp_path: Path, objects: str) -> None:
    both = [start(tmp_path / name, objects) for name in ("one", "two")]
    said = [process.communicate(timeout=LONGEST_SECONDS)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    performed = [
        {path.parent.name for path in (tmp_path / name / "store").glob("*/history.jsonl")} for name in ("one", "two")
    ]  # of training: of what is stored it is brought here too
    assert performed[0] == performed[1]
    begun = [line for one in said for line in one.splitlines() if line.startswith("  start ")]
    assert len(begun) == len(stored(objects)), begun
    first, second = (next((tmp_path / name).glob("runs/*/report/paired.csv")).read_bytes() for name in ("one", "two"))
    assert first == second


def test_an_object_store_that_is_away_for_a_while(
    tmp_path: Path, objects: str, objects_server: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxied(objects_server.endpoint) as proxy:
        for name, value in variables(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        process = start(tmp_path / "one", objects)
        deadline = time.monotonic() + LONGEST_SECONDS
        while not any("finetune-" in path for _, path in proxy.seen):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        proxy.always(Fault.ERROR)
        time.sleep(10)
        proxy.always(None)
        said, _ = process.communicate(timeout=LONGEST_SECONDS)
        assert process.returncode == 0, said[-3000:]


def test_an_object_store_that_does_not_answer_is_told_before_work(tmp_path: Path, objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    process = start(tmp_path / "one", objects)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "the store does not answer" in said
    assert said.count("\n") <= 3
