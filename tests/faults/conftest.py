"""What the tests of faults use of those of the pipeline: how a command is called, the tiny experiment, killing a tree of processes."""

import sys
from pathlib import Path

PIPELINE = str(Path(__file__).parents[1] / "pipeline")
if PIPELINE not in sys.path:
    sys.path.append(PIPELINE)
