"""Searches in a real MLflow database: trials as child runs, pictures as artifacts, and never anything twice."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mirrored import START, dump, points_of
from searched_stages import GRID, HELD_OUT, STREAM, searched

from evaluators.scores import TaskScore
from pipeline.report.search_figures import Searched
from pipeline.tracking.book import Book
from pipeline.tracking.mirror import Mirror
from pipeline.tracking.search import mirror_search

KEY = "pipeline/search-0123"
FINISHED = START + 60


def open_book(database: Path) -> Book:
    return Book(f"sqlite:///{database}", "experiment", database.parent / "artifacts", "pipeline")


def write(book: Book, found: Searched, finished: float = FINISHED) -> tuple[str, list[str]]:
    """As the mirror does it: the search's run, what is in it, its end."""
    run = book.run(KEY, "search", {"mergeline.kind": "search"}, START)
    trials = mirror_search(book, run, KEY, found, finished, lambda tags: {"mergeline.run": "tiny", **tags})
    book.end(run, "FINISHED", finished)
    return run, trials


def whole_of(book: Book) -> dict[str, Any]:
    return dump(cast(Mirror, SimpleNamespace(book=book)))


def test_trials_are_child_runs_with_the_metrics_of_an_evaluation(database: Path) -> None:
    book, found = open_book(database), searched(stage=2, stopped=[4])
    run, trials = write(book, found)
    runs = {each.info.run_id: each for each in book.client.search_runs([book.experiment_id], f"tags.`mlflow.parentRunId` = '{run}'")}
    assert set(runs) == set(trials)
    for trial, run_id in zip(found.trials, trials, strict=True):
        data, info = runs[run_id].data, runs[run_id].info
        assert data.params == {"alpha": f"{trial.point['alpha']:g}"}
        assert data.metrics["search/value"] == pytest.approx(trial.value, abs=1e-6)
        assert data.metrics["acc/average"] == pytest.approx(trial.value, abs=1e-6)
        assert {f"acc/{task}" for task in (*HELD_OUT, *STREAM)} <= set(data.metrics)
        assert data.metrics["acc_stderr/held_out"] == pytest.approx(0.03 / math.sqrt(2), abs=1e-6)
        assert data.tags["mergeline.picked"] == str(trial.number == found.pick).lower()
        assert data.tags["mergeline.stopped"] == str(trial.stopped).lower()
        assert (data.tags["mergeline.kind"], data.tags["mergeline.stage"], data.tags["mergeline.seed"]) == ("trial", "2", "0")
        assert (data.tags["mergeline.split"], data.tags["mergeline.run"]) == ("validation", "tiny")
        assert (info.status, info.end_time) == ("FINISHED", FINISHED * 1000)
        assert {point.step for point in book.client.get_metric_history(run_id, "acc/average")} == {2}


def test_the_search_itself_tells_its_pick_and_shows_its_pictures(database: Path) -> None:
    test = {task: TaskScore(0.4, 0.02, 400) for task in (*HELD_OUT, *STREAM)}
    book, found = open_book(database), searched(test=test)
    run, _ = write(book, found)
    data = book.client.get_run(run).data
    assert (data.params["goal"], data.params["split"], data.params["trials"]) == ("average", "validation", "5")
    assert data.metrics["search/picked/alpha"] == found.picked.point["alpha"]
    assert (data.metrics["search/best"], data.metrics["search/test"]) == (pytest.approx(found.picked.value, abs=1e-6), 0.4)
    history = {point.step: point.value for point in book.client.get_metric_history(run, "search/value")}
    assert history == {trial.number: pytest.approx(trial.value, abs=1e-6) for trial in found.trials}
    names = {file.path for file in book.client.list_artifacts(run, "search")}
    assert names == {f"search/{name}" for name in ("curve.png", "frontier_held_out.png", "frontier_others.png", "search.md", "trials.csv")}


def test_writing_it_again_adds_nothing(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_book(database)
    write(first, searched())
    once, places = whole_of(first), points_of(cast(Mirror, SimpleNamespace(book=first)))
    again = open_book(database)
    monkeypatch.setattr("pipeline.tracking.search.write_search_report", lambda *_: pytest.fail("drawn again"))
    write(again, searched())
    assert whole_of(again) == once
    assert sorted(points_of(cast(Mirror, SimpleNamespace(book=again)))) == sorted(places)


class Crash(BaseException):
    """Not an Exception, so that nothing can swallow it."""


class Failing:
    """A client whose `at`-th writing call ends in a crash, after it was carried out."""

    def __init__(self, client: Any, at: int) -> None:
        self._client, self._left = client, at

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if not name.startswith(("create_", "log_", "set_", "update_")):
            return real

        def call(*arguments: Any, **keywords: Any) -> Any:
            result = real(*arguments, **keywords)
            self._left -= 1
            if self._left == 0:
                raise Crash
            return result

        return call


def test_interrupted_it_comes_to_the_same(database: Path, tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off in the search's own run, between artifacts, and within trials; then written to the end."""

    def pages(searches: object, directory: Path, *_: object) -> list[Path]:  # drawing is not what is tested, and takes a second
        (directory / "search.md").write_text("page")
        return [directory / "search.md"]

    monkeypatch.setattr("pipeline.tracking.search.write_search_report", pages)
    found = searched(points=GRID[:2])
    crashes = 0
    for at in (2, 3, 4, 5, 7, 9):
        book = open_book(database)
        book.client = Failing(book.client, at)
        try:
            write(book, found)
        except Crash:
            crashes += 1
    assert crashes >= 5
    write(open_book(database), found)
    (tmp_path / "fresh").mkdir()
    fresh = tmp_path / "fresh" / "mlflow.db"
    fresh.write_bytes(empty_database.read_bytes())
    straight = open_book(fresh)
    write(straight, found)
    assert whole_of(open_book(database)) == whole_of(straight)


def test_made_again_with_other_points_it_has_runs_for_them(database: Path) -> None:
    write(open_book(database), searched(points=GRID[:2]))
    other = searched(points=[GRID[0], {"alpha": 0.333}])
    book = open_book(database)
    _, trials = write(book, other, FINISHED + 100)
    assert [book.client.get_run(run).data.params["alpha"] for run in trials] == ["0", "0.333"]


def test_values_alone_and_parts_of_scores(database: Path) -> None:
    found = searched(points=[{"method": "ties", "density": 0.25}, {"method": "slerp"}])
    bare, part = found.trials[0], found.trials[1]
    scored = {**part.scores, "read@1": TaskScore(0.25, 0.01, 100)}
    book = open_book(database)
    _, trials = write(book, replace(found, trials=(replace(bare, scores={}), replace(part, scores=scored))))
    first, second = (book.client.get_run(run).data for run in trials)
    assert set(first.metrics) == {"search/value", "total/seconds"}
    assert first.params == {"method": "ties", "density": "0.25"}
    assert second.metrics["acc/read_at_1"] == 0.25
