"""What a run came to on its pipeline's run in MLflow: what merges changed on the same samples, intransigence, tables and description."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mirrored import TINY, complete, dump, leave, make, open_mirror, points_of, runs_of

from evaluators.scores import Sample, write_samples
from evaluators.statistics import paired
from pipeline.compare import compare_runs, open_run
from pipeline.config.experiment import Built
from pipeline.steps import Evaluate
from pipeline.store import Store
from pipeline.tracking.mirror import Mirror
from pipeline.tracking.pages import pages_of
from pipeline.tracking.results import mirror_comparison
from pipeline.tracking.tracker import mark
from pipeline.tracking.writing.written import Mirrored

SAMPLES = 8  # of each task, as the records of `mirrored` tell


def with_answers(built: Built, store: Store) -> None:
    """Leave answers beside the scores: the first so many samples right."""
    for step in built.steps:
        record = store.record(step) if isinstance(step, Evaluate) else None
        if record is not None:
            right = {task: round(score["accuracy"] * SAMPLES) for task, score in record.metrics.items()}
            rows = [Sample(task, str(n), "q", "yes", "", float(n < count)) for task, count in right.items() for n in range(SAMPLES)]
            write_samples(rows, record.directory / "samples.parquet")


def artifact(mirror: Mirror, run: str, name: str, place: Path) -> str:
    return Path(mirror.book.client.download_artifacts(run, f"comparison/{name}", str(place))).read_text()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> tuple[Built, Store, Mirror]:
    """A finished experiment with answers, mirrored once. Tests only read it."""
    workspace = tmp_path_factory.mktemp("compared")
    built, store = make(workspace)
    with_answers(built, store)
    mirror = open_mirror(built, store, Path(shutil.copy(empty_database, workspace / "mlflow.db")))
    complete(mirror)
    return built, store, mirror


def test_what_each_merge_changed_lies_over_the_stages(compared: tuple[Built, Store, Mirror], tmp_path: Path) -> None:
    built, store, mirror = compared
    (run,) = runs_of(mirror, "pipeline")
    client = mirror.book.client
    by_place = {(milestone.stage, milestone.role.value): store.record(milestone.evaluation) for milestone in built.milestones}
    for stage in (1, 2):
        before, after = (by_place[stage, role] for role in ("before", "after"))
        assert before is not None
        assert after is not None
        counts = [round(record.metrics["parity"]["accuracy"] * SAMPLES) for record in (before, after)]
        expected = paired(*([float(n < count) for n in range(SAMPLES)] for count in counts))
        for key, value in {"change/parity": expected.difference, "change_p/parity": expected.p}.items():
            points = {point.step: point for point in client.get_metric_history(run.info.run_id, key)}
            assert points[stage].value == pytest.approx(value, abs=1e-6)  # as they are rounded
            assert points[stage].timestamp == round(after.content["finished"] * 1000)
    assert {"change/average", "change/held_out", "change/stream", "change_low/count", "change_high/count"} <= set(run.data.metrics)

    table = json.loads(artifact(mirror, run.info.run_id, "merges.json", tmp_path))
    assert table["columns"][:5] == ["task", "before", "after", "difference", "95 % interval"]
    assert [row[0] for row in table["data"]] == ["name", "parity", "count", "held-out mean", "stream mean", "average"]
    told = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert told == [{"path": "comparison/merges.json", "type": "table"}]
    assert "wise_ft, after the last stage: average **" in run.data.tags["mlflow.note.content"]
    assert "| task | base | before | after |" in artifact(mirror, run.info.run_id, "compare.md", tmp_path)


def test_written_again_nothing_is_added_and_a_users_own_words_stay(compared: tuple[Built, Store, Mirror], tmp_path: Path) -> None:
    built, store, mirror = compared
    database = Path(shutil.copy(built.workspace / "mlflow.db", tmp_path / "mlflow.db"))
    before, points = dump(mirror), points_of(mirror)
    (run,) = runs_of(mirror, "pipeline")
    sent: list[str] = []
    again = open_mirror(built, store, database)
    client: Any = again.book.client
    log_artifacts = client.log_artifacts
    client.log_artifacts = lambda *arguments: (sent.append(arguments[-1]), log_artifacts(*arguments))
    complete(again)
    assert dump(again) == before
    assert sorted(points_of(again)) == sorted(points)
    assert "comparison" not in sent
    client.set_tag(run.info.run_id, "mlflow.note.content", "my own words")
    client.set_tag(run.info.run_id, "mergeline.comparison", "of an older version")
    mirror_comparison(again)
    assert client.get_run(run.info.run_id).data.tags["mlflow.note.content"] == "my own words"
    assert "comparison" in sent


def test_the_pages_of_another_stage_are_those_of_its_evaluations(compared: tuple[Built, Store, Mirror]) -> None:
    built, _, mirror = compared
    leave(built)
    place = Mirrored(
        mirror.book.uri,
        mirror.book.experiment_id,
        mirror.pipeline_run(),
        tuple(mirror.compared_runs()),
        tuple(mirror.track_runs()),
    )
    mark(built, place)
    opened = open_run(built.run_directory)
    assert pages_of(compare_runs([opened])).runs == place.compared
    runs = pages_of(compare_runs([opened], 1)).runs
    told = [mirror.book.client.get_run(run).data.tags for run in runs]
    assert [(tags["mergeline.stage"], tags["mergeline.role"]) for tags in told] == [("1", "before"), ("1", "after")]


def test_without_answers_the_tables_are_there_and_no_paired_figure(database: Path) -> None:
    built, store = make(database.parent)
    mirror = open_mirror(built, store, database)
    complete(mirror)
    (run,) = runs_of(mirror, "pipeline")
    assert not any(key.startswith("change") for key in run.data.metrics)
    assert "average **" in run.data.tags["mlflow.note.content"]


def test_an_unfinished_run_has_what_its_finished_stages_came_to(database: Path) -> None:
    built, store = make(database.parent, steps=7)
    with_answers(built, store)
    mirror = open_mirror(built, store, database)
    complete(mirror)
    (run,) = runs_of(mirror, "pipeline")
    stages = {point.step for point in mirror.book.client.get_metric_history(run.info.run_id, "change/parity")}
    assert stages == {1}


def test_of_several_arms_each_has_a_bar_and_intransigence_lies_on_the_tracks(database: Path) -> None:
    file = database.parent / "arms.yaml"
    lines = [line for line in TINY.read_text().splitlines() if not line.startswith(("#", "recipe:", "name:", "alpha:", "merge:"))]
    arms = "arms:\n  one by one: {recipe: sequential}\n  averaged: {recipe: wise_ft, alpha: 0.5}\n  together: {recipe: joint}\n"
    file.write_text("\n  ".join(["recipe: compare\nname: tiny\nseeds: [0]\ncommon:", *lines]) + f"\n{arms}")
    built, store = make(database.parent, file)
    with_answers(built, store)
    mirror = open_mirror(built, store, database)
    complete(mirror)
    (run,) = runs_of(mirror, "pipeline")
    assert {"acc_average/averaged", "acc_average/one by one", "acc_average/together", "intransigence/averaged"} <= set(run.data.metrics)
    assert not any(key.startswith("change") for key in run.data.metrics)
    assert sorted(point.step for point in mirror.book.client.get_metric_history(run.info.run_id, "acc_average/averaged")) == [1, 2]
    tracks = [each for each in runs_of(mirror, "track") if "intransigence/stream" in each.data.metrics]
    assert {each.data.tags["mergeline.arm"] for each in tracks} == {"one by one", "averaged"}
    assert all(each.data.tags["mergeline.role"] == "after" for each in tracks)
    for each in tracks:
        history = mirror.book.client.get_metric_history(each.info.run_id, "intransigence/stream")
        assert sorted(point.step for point in history) == [1, 2]
        assert history[-1].value == pytest.approx(run.data.metrics[f"intransigence/{each.data.tags['mergeline.arm']}"])
    assert {each["path"] for each in json.loads(run.data.tags["mlflow.loggedArtifacts"])} == {
        "comparison/merges.json",
        "comparison/arms.json",
    }
