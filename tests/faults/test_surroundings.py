"""Odd surroundings change nothing: time zones, locales, jumping clocks, strict file modes, spaces and letters in paths, a read-only cache.

The pipeline of `crash_points.py` and a merge by the command are run in each, and their bytes compared with those of plain surroundings.
"""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_points import result
from small_merges import save_random

from foundation.files import directory_manifest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
NAME = "drôle de dépôt 数据 'x' $HOME"
BOTH = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import crash_points
from pipeline import cli
here = Path(sys.argv[1])
crash_points.run(here / "store")
sys.argv = ["mergeline", "merge", "--checkpoints", "a", "b", "--output", "merged", "--processes", "1"]
os.chdir(here)
cli.main()
"""
JUMP = """
import time
real, jumps = time.time, iter([0, 3600, -86400, 30])
time.time = lambda: real() + next(jumps, -86400)
"""
"""A clock that goes an hour ahead and a day back: nothing may be decided by it."""


def ran(here: Path, before: str = "", **environment: str) -> dict[str, object]:
    """What the pipeline and the merge made in a process with this environment."""
    here.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate("ab"):
        if not (here / name).exists():
            save_random(here / name, seed)
    ours = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{HERE}", "MERGELINE_COMMIT": "none", **environment}
    done = subprocess.run(
        [sys.executable, "-c", before + BOTH, str(here)], env=ours, capture_output=True, text=True, encoding="utf-8", cwd=here, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {"steps": result(here / "store"), "merged": directory_manifest(here / "merged")}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return ran(tmp_path_factory.mktemp("plain"))


ODD: dict[str, Callable[[Path], dict[str, object]]] = {
    "half an hour from UTC, no UTF-8, another hash seed, files for nobody else, a path of spaces, letters and signs": lambda here: ran(
        here / NAME,
        before="import os; os.umask(0o077)\n",
        TZ="Australia/Adelaide",
        LC_ALL="C",
        LANG="C",
        PYTHONUTF8="0",
        PYTHONHASHSEED="12345",
    ),
    "a clock that jumps": lambda here: ran(here, before=JUMP),
}


@pytest.mark.slow
def test_odd_surroundings_change_no_byte(plain: dict[str, object], tmp_path: Path) -> None:
    for number, (kind, run) in enumerate(ODD.items()):
        assert run(tmp_path / str(number)) == plain, kind
    written = [path for path in (tmp_path / "0").rglob("*") if path.name in ("record.json", "model.safetensors")]
    assert len(written) > 10
    for path in written:
        if path.parent.name not in "ab":
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"{path} can be read by others although the umask says no"


def test_a_hub_cache_that_cannot_be_written_is_only_read(tmp_path: Path) -> None:
    """Snapshots link to blobs in a cache that belongs to somebody else; nothing is written beside them."""
    cache = tmp_path / "hub" / "models--org--name"
    snapshot = save_random(cache / "snapshots" / "abc", seed=0)
    (cache / "blobs").mkdir()
    for path in sorted(snapshot.iterdir()):
        blob = path.rename(cache / "blobs" / f"blob-of-{path.name}")
        path.symlink_to(f"../../blobs/{blob.name}")
    save_random(tmp_path / "b", seed=1)
    before = {path: path.lstat().st_mtime_ns for path in sorted((tmp_path / "hub").rglob("*"))}
    for path in [tmp_path / "hub", *before]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    command = [sys.executable, "-m", "pipeline", "merge", "--checkpoints", str(snapshot), "b", "--output", "merged", "--processes", "1"]
    unprivileged = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    tmp_path.chmod(0o777)
    parents = [parent for parent in tmp_path.parents if not parent.stat().st_mode & stat.S_IXOTH]
    if unprivileged and (parents or not os.access(sys.executable, os.X_OK) or not readable_by_all(REPOSITORY)):
        unprivileged = {}  # the temporary directory or this code is for root alone: root writes anywhere, and only the times can tell
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        **unprivileged,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path: path.lstat().st_mtime_ns for path in sorted((tmp_path / "hub").rglob("*"))} == before


def readable_by_all(place: Path) -> bool:
    """Whether any user could import what lies here."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (place, *place.parents, *Path(sys.executable).resolve().parents))


def test_time_zones_do_not_change_the_time_of_a_point(tmp_path: Path) -> None:
    """Times are seconds since 1970, whatever the zone in which they were written."""
    code = (
        "import sys; from pathlib import Path; from pipeline.graph.history import HistoryLog, read_history\n"
        "path = Path(sys.argv[1]); HistoryLog(path, 'k')(int(sys.argv[2]), {'x': 1.0})\n"
        "print([point.time for point in read_history(path)][-1])"
    )
    times = []
    for number, zone in enumerate(("UTC", "Pacific/Kiritimati", "Pacific/Niue")):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TZ": zone}
        command = [sys.executable, "-c", code, str(tmp_path / "history.jsonl"), str(number)]
        times.append(float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout))
    assert times == sorted(times)
    assert times[-1] - time.time() < 1
