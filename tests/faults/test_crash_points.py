"""Every durable operation of a three-stage pipeline crashed before it, after it, and with half of the file lost: the same bytes each time.

`MERGELINE_CRASH_EVERY` crashes every so-manieth operation (default 7; `make chaos` crashes all).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EVERY = int(os.environ.get("MERGELINE_CRASH_EVERY", "7"))
OPERATIONS = 200
"""The pipeline has more than so many; a shim that misses most of them would prove nothing."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_crash_at_any_durable_operation_loses_nothing(tmp_path: Path) -> None:
    program = Path(__file__).with_name("crash_points.py")
    environment = {**os.environ, "PYTHONPATH": str(program.parents[2])}
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), str(EVERY)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    print(f"crash points: {told['points']} of a pipeline of {told['steps']} steps, every {EVERY}; failed: {len(told['failures'])}")
    assert told["failures"] == [], done.stderr[-3000:]
    assert told["points"]["before"] == told["points"]["after"] >= OPERATIONS // EVERY
    assert told["points"]["torn"] >= OPERATIONS // EVERY // 8
