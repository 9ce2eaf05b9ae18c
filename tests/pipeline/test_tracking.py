"""The mirror in MLflow: what is nested, what is compared, which way the lineage leads. All of it comes from records."""

import json
from collections.abc import Callable
from pathlib import Path

from mirrored import Whole, complete, dump, make, open_mirror, runs_of

from evaluators.suite import Suite
from foundation.files import directory_manifest, manifest_digest
from pipeline.steps import Evaluate


def test_work_is_nested_and_what_is_compared_is_not(whole: Whole) -> None:
    _, _, mirror, _ = whole
    (pipeline,) = runs_of(mirror, "pipeline")
    nested = [run for kind in ("pretrain", "finetune", "merge") for run in runs_of(mirror, kind)]
    assert len(nested) == 5
    assert all(run.data.tags["mlflow.parentRunId"] == pipeline.info.run_id for run in nested)
    compared = runs_of(mirror, "evaluation") + runs_of(mirror, "track")
    assert sorted(run.info.run_name for run in compared) == [
        "after merge", "before merge", "s0 base", "s1 parity, after merge", "s1 parity, before merge",
        "s2 count, after merge", "s2 count, before merge",
    ]  # fmt: skip
    assert not any("mlflow.parentRunId" in run.data.tags for run in compared)
    assert {run.info.status for run in [pipeline, *nested, *compared]} == {"FINISHED"}


def test_before_and_after_have_the_same_metric_names_and_differ_in_role_and_merge_alone(whole: Whole) -> None:
    _, _, mirror, _ = whole
    client = mirror.book.client
    before, after = (client.get_run(run) for run in mirror.compared_runs())
    assert (before.info.run_name, after.info.run_name) == ("s2 count, before merge", "s2 count, after merge")
    assert set(before.data.metrics) == set(after.data.metrics) >= {"acc/average", "acc/held_out", "acc/stream", "acc/parity", "acc/name"}
    different = {key for key in before.data.params if before.data.params[key] != after.data.params[key]}
    assert set(before.data.params) == set(after.data.params)
    assert different == {"role", "merge"}
    tracks = [client.get_run(run) for run in mirror.track_runs()]
    assert set(tracks[0].data.metrics) == set(tracks[1].data.metrics) >= {"acc/average", "forgetting/stream", "drift/held_out"}
    assert len({run.data.tags["mlflow.runColor"] for run in tracks}) == 2


def test_the_stage_is_the_step_and_values_are_those_of_the_records(whole: Whole) -> None:
    built, store, mirror, _ = whole
    client = mirror.book.client
    for track, role in zip(mirror.track_runs(), ("before", "after"), strict=True):
        shown = {point.step: point.value for point in client.get_metric_history(track, "acc/count")}
        milestones = [milestone for milestone in built.milestones if milestone.role.value in ("base", role)]
        records = {milestone.stage: store.record(milestone.evaluation) for milestone in milestones}
        assert shown == {stage: record.metrics["count"]["accuracy"] for stage, record in records.items() if record is not None}
        assert sorted(shown) == [0, 1, 2]
    for run in runs_of(mirror, "evaluation"):
        stage = int(run.data.tags["mergeline.stage"])
        assert {point.step for key in run.data.metrics for point in client.get_metric_history(run.info.run_id, key)} == {stage}


def test_the_pipeline_run_tells_what_was_asked_and_what_came_out(whole: Whole) -> None:
    _, _, mirror, _ = whole
    (pipeline,) = runs_of(mirror, "pipeline")
    assert pipeline.data.params["tasks"] == "parity, count"
    assert pipeline.data.params["merge"] == "0.5 x previous + 0.5 x tuned"
    after = mirror.book.client.get_run(mirror.compared_runs()[1])
    assert pipeline.data.metrics["acc/average"] == after.data.metrics["acc/average"]
    assert "before_merge/acc/average" in pipeline.data.metrics


def test_lineage_leads_from_the_last_merge_to_the_base(whole: Whole) -> None:
    built, _, mirror, _ = whole
    client, book = mirror.book.client, mirror.book
    expected = {step.key: sorted(needed.key for needed in step.inputs) for step in built.steps if not isinstance(step, Evaluate)}
    last = built.milestones[-1].model

    def key_of(model: str) -> str:
        return str(client.get_logged_model(model).tags["mergeline.step"])

    def through_runs(model: str) -> list[str]:
        run = client.get_run(client.get_logged_model(model).source_run_id)
        assert [output.model_id for output in run.outputs.model_outputs] == [model]
        return [entry.model_id for entry in run.inputs.model_inputs]

    def through_tags(model: str) -> list[str]:
        return [parent for parent in client.get_logged_model(model).tags["mergeline.parents"].split(",") if parent]

    def walk(parents: Callable[[str], list[str]]) -> dict[str, list[str]]:
        waiting, seen = [book.find_model(f"{book.pipeline}/{last.key}")], {}
        while waiting:
            model = waiting.pop()
            assert model is not None
            if key_of(model) not in seen:
                above = parents(model)
                seen[key_of(model)] = sorted(map(key_of, above))
                waiting += above
        return seen

    assert walk(through_runs) == walk(through_tags) == expected


def test_models_carry_place_and_digest_and_no_weights(whole: Whole) -> None:
    built, store, mirror, _ = whole
    models = {model.tags["mergeline.step"]: model for model in mirror.book.client.search_logged_models([mirror.book.experiment_id])}
    made = [step for step in built.steps if not isinstance(step, Evaluate)]
    assert set(models) == {step.key for step in made}
    assert sorted(model.name for model in models.values()) == [
        "base",
        "s1-parity-merged",
        "s1-parity-tuned",
        "s2-count-merged",
        "s2-count-tuned",
    ]
    for step in made:
        record = store.record(step)
        assert record is not None
        tags = models[step.key].tags
        assert tags["mergeline.uri"] == str(record.checkpoint)
        assert tags["mergeline.digest"] == f"sha256:{manifest_digest(directory_manifest(Path(tags['mergeline.uri'])))}"
        assert str(models[step.key].status) == "READY"
    artifacts = Path(built.workspace / "artifacts")
    assert not [path for path in artifacts.rglob("*") if path.is_file() and path.suffix in (".safetensors", ".bin")]


def test_an_evaluated_model_shows_its_scores(whole: Whole) -> None:
    built, store, mirror, _ = whole
    milestone = built.milestones[-1]
    record = store.record(milestone.evaluation)
    assert record is not None
    model = mirror.book.client.get_logged_model(mirror.model(milestone.model))
    assert {metric.key: metric.value for metric in model.metrics} == {
        f"acc/{task}": score["accuracy"] for task, score in record.metrics.items()
    }
    assert {metric.dataset_name for metric in model.metrics} == {"parity", "count", "name"}


def test_several_arms_and_awkward_names(tmp_path: Path, database: Path) -> None:
    text = """
recipe: compare
name: two
seeds: [0]
common:
  base: {pretrain: digits_llava, settings: {tower_steps: 3, language_steps: 3, most_samples: 40, threads: 1}}
  tasks: [parity]
  held_out: [name]
  train: {samples: 64, max_steps: 8, batch_size: 8, learning_rate: 1e-3}
  evaluate: {samples: 8}
arms:
  "it's 50%: α/0.5": {recipe: wise_ft, alpha: 0.5}
  tuned: {recipe: sequential}
"""
    (tmp_path / "two.yaml").write_text(text)
    built, store = make(tmp_path / "ws", tmp_path / "two.yaml")
    mirror = open_mirror(built, store, database)
    complete(mirror)
    once = dump(mirror)
    assert len(mirror.track_runs()) == 3
    assert len(runs_of(mirror, "evaluation")) == 5  # base for each arm, tuned twice, merged once
    again = open_mirror(built, store, database)
    complete(again)
    assert dump(again) == once


def test_the_suite_behind_the_saved_views(whole: Whole) -> None:
    built, _, mirror, _ = whole
    suite: Suite = built.milestones[0].evaluation.suite
    tags = mirror.book.client.get_experiment(mirror.book.experiment_id).tags
    view = json.loads(json.loads(tags["mlflow.sharedViewState.mergeline-stages"])["state"])
    assert [column for column in view["selectedColumns"] if "average" in column] == ["metrics.`acc/average`"]
    shown = {metric.removeprefix("metrics.`").removesuffix("`") for metric in view["selectedColumns"]}
    assert {f"acc/{task.name}" for task in suite.tasks} <= shown
    found = mirror.book.client.search_runs([mirror.book.experiment_id], view["searchFilter"])
    assert len(found) == 5
    assert shown <= set(found[0].data.metrics)
