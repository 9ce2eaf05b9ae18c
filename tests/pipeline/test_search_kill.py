"""`kill -9` of the whole process tree in the middle of a search: it goes on with what had ended, to the list of one left undisturbed."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_kill import kill_tree
from tiny_run import TINY

from pipeline.command.search import search_settings, stage_search
from pipeline.config.experiment import Built, build
from pipeline.graph.perform import perform
from pipeline.plan import needed
from pipeline.runner import Finished
from pipeline.search.answers import ANSWERS_FILE, FOLDER, read_answers
from pipeline.search.records import FOUND, NAME
from pipeline.store import Store

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LONGEST_SECONDS = 300
KILL_AFTER = (2, 5) if "MERGELINE_KILLS" in os.environ else (3,)
"""So many trials are on disk when the command is killed; twice with `make chaos`."""
POINTS = 9


def start(workspace: Path, log: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "pipeline", "search", str(TINY), f"workspace={workspace}", "--stage", "1", "--cpus", "3"]
    command += ["--points", str(POINTS), "--samples", "60", "--workers", "2", *options]
    with open(log, "a") as file:
        return subprocess.Popen(command, cwd=TINY.parents[2], stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def on_disk(workspace: Path) -> list[dict[str, Any]]:
    """The trials that have ended, of a search that has not."""
    paths = list((workspace / "store").glob(f"search-*/work/trials/{NAME}"))
    whole = paths[0].read_bytes() if paths else b""
    return [json.loads(line)["trial"] for line in whole[: whole.rfind(b"\n") + 1].splitlines()[1:]]


def killed_after(workspace: Path, log: Path, count: int) -> list[dict[str, Any]]:
    """Start the search, kill it once so many trials are on disk, and give those."""
    process, latest = start(workspace, log), time.monotonic() + LONGEST_SECONDS
    while len(on_disk(workspace)) < count:
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < latest, log.read_text()[-3000:]
        time.sleep(0.01)
    print(f"killed {kill_tree(process)} processes with {len(on_disk(workspace))} of {POINTS} trials on disk")
    return on_disk(workspace)


def finished(workspace: Path, log: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Run the search to its end: where it lies, and its trials."""
    process = start(workspace, log)
    assert process.wait(LONGEST_SECONDS) == 0, log.read_text()[-3000:]
    (place,) = (workspace / "store").glob("search-*")
    return place, json.loads((place / FOUND).read_text())["trials"]


def searched_here(workspace: Path, place: Path) -> list[dict[str, Any]]:
    """The trials of the same search in this process, which nobody kills; it lies where the other lay."""
    built = build(TINY, [f"workspace={workspace}"], fitting=True)
    _, step = stage_search(built, 1, search_settings({"points": POINTS, "samples": 60, "workers": 2}), {})
    store = Store(workspace / "store")
    assert list(needed([step], store)) == [step.key]
    assert store.directory(step) == place
    perform(replace(step, workers=0), store)
    return json.loads((place / FOUND).read_text())["trials"]


def timeless(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**trial, "seconds": 0} for trial in trials]


@pytest.mark.timeout(4 * LONGEST_SECONDS)
def test_a_killed_search_ends_with_the_list_of_one_that_was_not(tiny: tuple[Path, Built, Finished, str], tmp_path: Path) -> None:
    workspace, log = tmp_path / "work", tmp_path / "log"
    shutil.copytree(tiny[0], workspace, symlinks=True)
    before: list[dict[str, Any]] = []
    for count in KILL_AFTER:
        then = killed_after(workspace, log, count)
        assert then[: len(before)] == before, "what had ended stays, to the second"
        before = then
        assert len(before) < POINTS
    place, trials = finished(workspace, log)
    by_number = {trial["number"]: trial for trial in trials}
    assert [by_number[trial["number"]] for trial in before] == before, "no trial that had ended was asked again"
    assert [trial["number"] for trial in trials] == list(range(POINTS))
    answers = read_answers(place / ANSWERS_FILE)
    assert not (place / "work").exists()
    assert not list((workspace / "store").rglob(FOLDER))

    shutil.rmtree(place)
    undisturbed = searched_here(workspace, place)
    assert timeless(trials) == timeless(undisturbed)
    expected = read_answers(place / ANSWERS_FILE)
    assert answers.keys() == expected.keys()
    for number, one in answers.items():
        assert {task: scores.tolist() for task, scores in one.scores.items()} == {
            task: scores.tolist() for task, scores in expected[number].scores.items()
        }
