"""Actors that share an object store alone write whole files of a merge, to the bytes of the merge in one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PROGRAM = Path(__file__).with_name("sharded_merge.py")


def test_actors_that_put_whole_files_there_write_the_same_bytes(tmp_path: Path, objects: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[3])}
    done = subprocess.run([sys.executable, PROGRAM, tmp_path, objects], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert sum(name.endswith(".safetensors") for name in told["alone"]) > 2
    assert told["files"] == told["alone"]
    assert told["there"] == {name: (tmp_path / "alone" / name).stat().st_size for name in told["alone"]}
