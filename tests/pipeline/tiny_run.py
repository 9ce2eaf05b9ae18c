"""The tiny experiment as the tests run it, and what two runs of it are compared by."""

import io
import json
import sqlite3
from pathlib import Path

from rich.console import Console

from foundation.files import directory_manifest
from pipeline.command.summary import print_finished
from pipeline.config.experiment import Built, build
from pipeline.runner import Finished, run

TINY = Path(__file__).parent / "tiny.yaml"


def run_tiny(workspace: Path, *overrides: str) -> tuple[Built, Finished, str]:
    """What was to be made, what was, and what the command says of it. MLflow is waited for as long as a busy machine may need."""
    built = build(TINY, [f"workspace={workspace}", "tracking.wait=300", *overrides])
    console = Console(file=io.StringIO(), width=100)
    finished = run(built, console)
    print_finished(built, finished, console, [str(TINY)])
    return built, finished, console.file.getvalue()  # type: ignore[attr-defined]


def final_checkpoint(workspace: Path) -> dict[str, str]:
    """Name -> SHA-256 of the files of the last merged checkpoint."""
    return directory_manifest((workspace / "runs" / "tiny" / "checkpoints" / "wise_ft_after_count").resolve())


def tracked(workspace: Path) -> dict[str, object]:
    """What MLflow's database holds, apart from ids, times and measured durations: to compare an interrupted run with an undisturbed one."""
    with sqlite3.connect(workspace / "mlflow.db") as connection:
        runs = connection.execute("select name, status from runs where lifecycle_stage = 'active'").fetchall()
        models = connection.execute("select name, status from logged_models").fetchall()
        points = connection.execute(
            "select runs.name, key, step, count(*) from metrics join runs using (run_uuid) "
            "where key not like 'total/%' and key not like 'system/%' group by run_uuid, key, step"
        ).fetchall()
    return {"runs": sorted(runs), "models": sorted(models), "points": sorted(points)}


def records(workspace: Path) -> dict[str, dict]:
    """Step key -> record."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted((workspace / "store").glob("*/record.json"))}
