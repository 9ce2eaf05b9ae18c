"""With what a run was made: Python, platform, code and packages, as a file beside the journal. No variables: those hold secrets."""

import platform
from importlib.metadata import distributions
from pathlib import Path

from foundation.files import write_json_atomic
from pipeline.graph.cluster import code_commit
from pipeline.tracking.writing.journal import ROOM

ENVIRONMENT_FILE = "environment.json"


def write_environment(run_directory: Path) -> None:
    """Leave the environment of this process in a run's directory."""
    packages = {each.metadata["Name"]: each.version for each in distributions() if each.metadata["Name"]}
    told = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "commit": code_commit(),
        "packages": packages,
    }
    write_json_atomic(run_directory / ROOM / ENVIRONMENT_FILE, told)
