"""What a run says of the machine in MLflow: keys of their own, once, with the time stamps of the step's files; also of steps on Ray."""

import json
import time
from pathlib import Path

import pytest
from mirrored import complete, make, open_mirror, points_of, runs_of

from foundation.files import write_json_atomic
from pipeline.graph.history import Point
from pipeline.graph.usage import Sampling, sampling
from pipeline.graph.usage_files import read_usage, totals, usage_file
from pipeline.step import Step
from pipeline.steps import Evaluate, FineTune
from pipeline.store import Store
from pipeline.tracking.usage import MOST, step_times, usage_metrics

USED = {"seconds": 5.0, "cpu_seconds": 4.5, "peak_memory_bytes": 3 * 2**30, "throughput": {"samples_per_second": 12.5}}


def use(store: Store, step: Step, looks: int, role: str = "step") -> None:
    """Leave a record and files of a step as if it had been looked at."""
    record = store.by_key(step.key)
    assert record is not None
    with open(usage_file(record.directory, role), "a") as file:
        for number in range(looks):
            values = {f"system/{role}/memory_bytes": 1000.0 + number, **({"system/cpu_percent": 50.0} if role == "step" else {})}
            told = {"time": record.content["started"] + number, "process": "a", "values": values, "so_far": {"cpu_seconds": 1.0}}
            file.write(json.dumps(told) + "\n")
    write_json_atomic(record.directory / "record.json", {**record.content, "usage": USED})


def test_each_run_says_what_it_took_and_writing_it_again_adds_nothing(tmp_path: Path, database: Path) -> None:
    built, store = make(tmp_path)
    tune = next(step for step in built.steps if isinstance(step, FineTune))
    asked = next(step for step in built.steps if isinstance(step, Evaluate))
    use(store, tune, 3)
    use(store, tune, 2, "worker_0")
    use(store, asked, 2)
    mirror = open_mirror(built, store, database)
    complete(mirror)
    found = {run.data.tags["mergeline.step"]: run for run in (*runs_of(mirror, "finetune"), *runs_of(mirror, "evaluation"))}
    for step in (tune, asked):
        metrics = found[step.key].data.metrics
        assert metrics["time/seconds"] == 5
        assert metrics["time/cpu_seconds"] == 4.5
        assert metrics["memory/peak_bytes"] == 3 * 2**30
        assert metrics["throughput/samples_per_second"] == 12.5
    client, run = mirror.book.client, found[tune.key].info.run_id
    points = client.get_metric_history(run, "system/step/memory_bytes")
    started = store.by_key(tune.key).content["started"]  # type: ignore[union-attr]
    assert [(point.step, point.value, point.timestamp) for point in points] == [
        (number, 1000 + number, round((started + number) * 1000)) for number in range(3)
    ]
    assert len(client.get_metric_history(run, "system/worker_0/memory_bytes")) == 2
    assert [point.step for point in client.get_metric_history(run, "time/step_seconds")] == [4, 6]
    before = points_of(mirror)
    for each in found.values():
        client.set_tag(each.info.run_id, "mergeline.mirrored", "another")  # none counts as written
    again = open_mirror(built, store, database)
    complete(again)
    assert sorted(points_of(again)) == sorted(before)


def test_a_record_from_before_has_nothing_to_say(tmp_path: Path) -> None:
    built, store = make(tmp_path, steps=1)
    record = store.by_key(built.steps[0].key)
    assert record is not None
    assert usage_metrics(record) == []


def test_long_steps_are_shown_thinned_out_with_their_ends(tmp_path: Path) -> None:
    built, store = make(tmp_path, steps=1)
    use(store, built.steps[0], 3 * MOST + 7, "worker_1")
    record = store.by_key(built.steps[0].key)
    assert record is not None
    looks = [metric for metric in usage_metrics(record, 2) if metric.key == "system/worker_1/memory_bytes"]
    assert len(looks) <= MOST + 1
    assert [looks[0].step, looks[-1].step] == [0, 3 * MOST + 6]
    assert all(metric.step == 2 for metric in usage_metrics(record, 2) if metric.key.startswith(("time/", "memory/", "throughput/")))


def test_step_times_are_between_points_of_growing_steps() -> None:
    history = [Point(2, 10.0, {}), Point(4, 11.0, {}), Point(4, 11.5, {}), Point(10, 14.0, {})]
    assert [(metric.step, metric.value, metric.time) for metric in step_times(history)] == [(4, 0.5, 11.0), (10, 0.5, 14.0)]


@pytest.mark.cluster
def test_actors_leave_what_they_took_though_they_are_killed(tmp_path: Path, ray_cluster: None) -> None:
    from pipeline.graph.actors import RayActors
    from pipeline.graph.usage import Usage

    assert sampling().seconds == 0
    with Usage(Sampling(tmp_path, 30)), RayActors(2) as crew:
        assert list(crew.map(time.sleep, [0.2] * 8)) == [None] * 8
    roles = {look.role for look in read_usage(tmp_path)}
    assert {"step"} < roles <= {"step", "actor_0", "actor_1"}  # one of them may not have been up before all was done
    assert totals(tmp_path, 0)["peak_memory_bytes"] > 20_000_000
