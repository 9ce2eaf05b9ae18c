"""Two and four pipelines at once on one store, and the owner of a step killed outright: each step runs once, and is taken over at once.

`MERGELINE_ROUNDS` is how often (default 3; `make chaos` does 20).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = int(os.environ.get("MERGELINE_ROUNDS", "3"))
TAKEOVER_SECONDS = 60


@pytest.mark.slow
@pytest.mark.timeout(60 + 60 * ROUNDS)
def test_pipelines_share_a_store(tmp_path: Path) -> None:
    program = Path(__file__).with_name("sharing.py")
    environment = {**os.environ, "PYTHONPATH": str(program.parents[2])}
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), str(ROUNDS)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    print(f"one store: {told}")
    assert told["wrong"] == 0, done.stderr[-3000:]
    assert told["longest takeover"] < TAKEOVER_SECONDS
