"""A node that vanishes in the middle of a merge, or of training, and is not replaced: the work ends on the others, with the same bytes.

`MERGELINE_NODES=all` (`make chaos`) has training too; without it, the merge alone.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

NODES = 3
TRAINING = os.environ.get("MERGELINE_NODES") == "all"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An untrained digits model as a checkpoint."""
    from models.digits_llava import digits_llava, digits_processor
    from models.load import save_checkpoint
    from tasks.digits import all_texts

    save_checkpoint(digits_llava(seed=0), digits_processor(all_texts()), tmp_path / "base")
    return tmp_path / "base"


def test_a_node_removed_costs_no_more_than_what_was_in_work_there(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    program = Path(__file__).with_name("node_removals.py")
    tests = program.parents[1]
    arguments = [str(tmp_path), *([str(request.getfixturevalue("base"))] if TRAINING else [])]
    with tempfile.TemporaryDirectory(prefix="nodes", dir="/tmp") as temporary:  # short: Ray makes sockets in it
        environment = {
            **os.environ,
            "TMPDIR": temporary,
            "PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests, tests / "pipeline"))),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        environment.pop("RAY_ADDRESS", None)
        done = subprocess.run([sys.executable, str(program), *arguments], env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    print(f"a node removed: {told}")
    assert told["merge"]["same bytes"]
    assert told["merge"]["nodes left"] == NODES - 1, "the node did go"
    assert 0 < told["merge"]["begun when the node had gone"] < told["merge"]["items"], "it went in the middle"
    assert told["merge"]["items"] <= told["merge"]["begun"] <= told["merge"]["items"] + told["merge"]["in flight"] + 1
    if TRAINING:
        assert told["training"]["same bytes"]
        assert told["training"]["nodes left"] == NODES - 2, "another node did go"
        assert told["training"]["stored when the node had gone"] == [False], "in the middle of training"
        assert told["training"]["resumed from"] == 4, "the last checkpoint before the node went"
        assert told["training"]["was in step"] - told["training"]["resumed from"] <= told["training"]["save steps"], "no more is lost"
