"""Several pipelines that log at the same moment into one experiment, and what one of them alone would have left."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mirrored import REPOSITORY, TINY, Dump, complete, dump, make

from pipeline.config.experiment import Built
from pipeline.store import Store
from pipeline.tracking.backend import open_client
from pipeline.tracking.book import Book
from pipeline.tracking.mirror import Mirror

SECONDS = 300
PROGRAM = Path(__file__).parent / "logging_pipeline.py"
START, END, TAGS = 2, 3, 2
"""Places in a dumped run's (name, status, start, end), and that of its tags."""


@dataclass(frozen=True)
class Recorded:
    """An experiment with records, and the overrides that make it what it is."""

    built: Built
    store: Store
    overrides: tuple[str, ...]


def records_of(room: Path, count: int, *overrides: str) -> list[Recorded]:
    """`count` experiments that differ in alpha, each with its records in a workspace of its own."""
    made = []
    for index in range(count):
        workspace = room / f"workspace{index}"
        given = (f"workspace={workspace}", f"alpha={0.2 + 0.1 * index:.1f}", f"tracking.wait={SECONDS}", *overrides)
        made.append(Recorded(*make(workspace, TINY, *given[1:]), given))
    return made


def log_at_once(experiments: Sequence[Recorded], environment: Mapping[str, str]) -> None:
    """Log them all from processes of their own that begin together, and see each end well."""
    here = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    whole = {**here, **environment, "PYTHONPATH": str(REPOSITORY)}
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [
        subprocess.Popen([sys.executable, str(PROGRAM), str(TINY), *one.overrides], cwd=one.built.workspace, env=whole, **streams)
        for one in experiments
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert (said := process.stdout.readline()) == "ready\n", said + process.stdout.read()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(told)


def logged(uri: str, experiment: str) -> Dump:
    """All that MLflow holds of an experiment, by our keys; an error if anything is there twice."""
    client = open_client(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None, f"{uri} has no experiment {experiment}"
    shown: Any = SimpleNamespace(book=SimpleNamespace(client=client, experiment_id=found.experiment_id))
    return _comparable(dump(shown))


def undisturbed(experiments: Sequence[Recorded], empty: Path) -> Dump:
    """What these experiments come to when each is mirrored from its records alone, into a copy of the `empty` database."""
    expected: Dump = {}
    for one in experiments:
        config, database = one.built.config, Path(shutil.copy(empty, one.built.workspace / "alone.db"))
        experiment, artifacts = config.tracking.experiment or config.name, one.built.workspace / "alone"
        mirror = Mirror(Book(f"sqlite:///{database}", experiment, artifacts, one.built.identity[:16]), one.built, one.store)
        complete(mirror)
        alone = _comparable(dump(mirror))
        assert not expected.keys() & alone.keys()
        expected |= alone
    return expected


def versions(uri: str, name: str) -> list[str]:
    """The steps whose checkpoints are versions of a registered model, one entry for each version."""
    return sorted(version.tags["mergeline.step"] for version in open_client(uri).search_model_versions(f"name = '{name}'"))


def points_in(held: Dump) -> int:
    """How many points of runs a dump holds."""
    return sum(len(entry[3]) for (entry,) in held.values() if isinstance(entry[0], list))


def _comparable(held: Dump) -> Dump:
    """Without when a pipeline began and ended: all other moments come from records. Without what MLflow adds: numbers, and a tag."""
    text = re.sub(r"#/experiments/\d+/", "#/experiments/N/", json.dumps(held))
    told: Dump = json.loads(re.sub(r"version \d+(\]\(#/models/[^/]+/versions/)\d+", r"version N\1N", text))
    for (entry,) in told.values():
        if isinstance(entry[0], str):
            entry[3].pop("mlflow.modelVersions", None)
        elif entry[TAGS]["mergeline.kind"] == "pipeline":
            entry[0][START] = entry[0][END] = None
    return told


def differences(held: Any, expected: Any, place: str = "") -> list[str]:
    """Where two dumps differ, and how."""
    if isinstance(held, dict) and isinstance(expected, dict):
        return [line for key in sorted(held | expected) for line in differences(held.get(key), expected.get(key), f"{place}.{key}")]
    if isinstance(held, list) and isinstance(expected, list) and len(held) == len(expected):
        return [line for at, pair in enumerate(zip(held, expected, strict=True)) for line in differences(*pair, f"{place}[{at}]")]
    return [] if held == expected else [f"{place}: {held} instead of {expected}"]
