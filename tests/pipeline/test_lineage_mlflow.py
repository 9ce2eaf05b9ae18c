"""The lineage from MLflow alone: the same as from records, found by MLflow's own names, and told on its pages."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from commands import ended
from mirrored import START, Whole, complete, make, open_mirror, write_record

from foundation.errors import InputError
from pipeline.lineage import Lineage, read_lineage
from pipeline.lineage_names import find_model
from pipeline.step import Measurement, Outcome
from pipeline.tracking.ancestry import asked_of, tracked_lineage


def test_mlflow_alone_tells_the_same(whole: Whole) -> None:
    """Another workspace of the same experiment: keys, digests and scores are equal, so are the trees."""
    _, store, mirror, _ = whole
    by_records, by_mlflow = read_lineage(store.root), tracked_lineage(mirror.book.client.tracking_uri)
    mirrored = {key: by_records.models[key] for key in by_mlflow.models}
    assert len(mirrored) == len(by_records.models) == 5
    for key, model in mirrored.items():
        told = by_mlflow.models[key]
        assert told == model


def test_a_tracking_database_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*none\.db"):
        tracked_lineage(f"sqlite:///{tmp_path / 'none.db'}")
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("targets: [parity]\n" * 20)
    with pytest.raises(InputError, match=r"mlflow\.db is no SQLite database; move it aside"):
        tracked_lineage(f"sqlite:///{tmp_path / 'mlflow.db'}")


def address(whole: Whole) -> str:
    """The database that the experiment is mirrored in."""
    return str(whole[2].book.client.tracking_uri)


def test_mlflow_s_own_names_mean_the_model(whole: Whole, tmp_path: Path) -> None:
    """A logged model, the runs that made or asked it, the pipeline that ends with it, a registered version and an alias; and a copy."""
    built, store, mirror, _ = whole
    client, final = mirror.book.client, built.milestones[-1].model
    lineage = tracked_lineage(address(whole))
    asked: list[str] = []
    model = mirror.model(final)
    names = {
        "model": model,
        "model as a URI": f"models:/{model}",
        "the run that made it": mirror.book.find(f"{mirror.book.pipeline}/{final.key}"),
        "the run that asked it": mirror.compared_runs()[1],
        "the pipeline's run": mirror.pipeline_run(),
        "the pipeline's name": "tiny",
        "alias": "models:/tiny@latest-merged",
        "version": "models:/tiny/2",
        "source": client.get_model_version("tiny", "2").source,
        "copy": str(shutil.copytree(store.directory(final) / "checkpoint", tmp_path / "copy")),
    }
    for what, name in names.items():
        assert name is not None
        assert find_model(lineage, name, asked=asked_of(address(whole), lineage, asked.append)) == final.key, what
    assert not asked
    assert find_model(lineage, "models:/tiny/1", asked=asked_of(address(whole), lineage)) == built.milestones[2].model.key


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("models:/tiny@best", r"tiny has no alias 'best'; it has latest-merged \(version 2\)"),
        ("models:/tiny/7", r"Model Version \(name=tiny, version=7\) not found; is it of this MLflow"),
        ("models:/other@best", r"Registered Model with name=other not found"),
        ("m-" + "0" * 32, r"not found; is it of this MLflow"),
        ("0" * 32, r"Run with id=0+ not found"),
        ("tiny-alpha=0.3", r"no model here is called 'tiny-alpha=0\.3'"),
    ],
)
def test_what_mlflow_does_not_know_is_refused(whole: Whole, name: str, said: str) -> None:
    lineage = tracked_lineage(address(whole))
    with pytest.raises(InputError, match=said):
        find_model(lineage, name, asked=asked_of(address(whole), lineage))


def test_a_run_that_has_to_do_with_no_model_is_refused(whole: Whole) -> None:
    lineage = tracked_lineage(address(whole))
    with pytest.raises(InputError, match=r"the run 'before merge' \(track\) made no model and asked none"):
        find_model(lineage, whole[2].track_runs()[0], asked=asked_of(address(whole), lineage))


def test_a_version_whose_step_was_made_again_is_told_apart(whole: Whole) -> None:
    """The version stands for bytes that are no more; what is known is the lineage of those that took their place."""
    lineage = tracked_lineage(address(whole))
    key = whole[0].milestones[-1].model.key
    later = Lineage({**lineage.models, key: replace(lineage.models[key], digest="f" * 64)})
    notes: list[str] = []
    assert asked_of(address(whole), later, notes.append)("models:/tiny/2") == key
    (note,) = notes
    assert lineage.models[key].digest in note
    assert "f" * 64 in note


def test_the_commands_say_the_same_by_records_and_by_mlflow_alone(whole: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    """Trees and JSON, up from a model and down from the base and from a data set; the same text but for the place to ask next."""
    built, _, mirror, _ = whole
    base = built.milestones[0].model.key
    for asked in (["tiny"], [mirror.model(built.milestones[-1].model)], [base, "--down"], ["count", "--down"], ["--data", "parity"]):
        by_records = ended(capsys, "lineage", *asked, "--workspace", built.workspace)
        by_mlflow = ended(capsys, "lineage", *asked, "--tracking", address(whole))
        assert (by_records.code, by_mlflow.code) == (0, 0), by_records.err + by_mlflow.err
        assert by_records.out.splitlines()[:-1] == by_mlflow.out.splitlines()[:-1]
        assert len(by_records.out.splitlines()) > 10
        plain = [
            json.loads(ended(capsys, "lineage", *asked, "--json", *place).out)
            for place in (("--workspace", built.workspace), ("--tracking", address(whole)))
        ]
        assert plain[0] == plain[1]
    assert plain[0]["data"]["name"] == "parity"
    tuned = next(model for model in plain[0]["models"] if model["kind"] == "finetune")
    assert [each["name"] for each in tuned["data"]] == ["parity"]
    merged = next(model for model in plain[0]["models"] if model["kind"] == "merge")
    assert (merged["method"], merged["weights"]) == ("wise_ft", {"previous": "weight 0.5 (alpha)", "tuned": "weight 0.5"})


def test_a_model_s_page_leads_to_every_ancestor(whole: Whole) -> None:
    built, store, mirror, _ = whole
    client, final = mirror.book.client, built.milestones[-1].model
    page = client.get_logged_model(mirror.model(final)).tags["mlflow.note.content"]
    for step in (each for each in built.steps if not isinstance(each, Measurement)):
        link = f"](#/experiments/{mirror.book.experiment_id}/models/{mirror.model(step)}?workflowType=machine_learning)"
        assert (link in page) == (step.key != final.key)
    record = store.record(final)
    assert record is not None
    for told in (str(record.checkpoint), record.digest, "previous: weight 0.5 (alpha)", "[tiny, version 2](#/models/tiny/versions/2)"):
        assert told in page
    (run,) = re.findall(r"get-artifact\?path=lineage%2Flineage\.png&run_uuid=(\w+)", page)
    assert run == mirror.pipeline_run()
    (picture,) = client.list_artifacts(run, "lineage")
    assert picture.path == "lineage/lineage.png"
    assert Path(built.workspace / "artifacts").exists()


def test_pages_are_brought_up_to_date(tmp_path: Path, database: Path) -> None:
    """A step was made again with other bytes, and an earlier release had told less: written once more, MLflow says what the records say."""
    built, store = make(tmp_path / "ws")
    mirror = open_mirror(built, store, database)
    complete(mirror)
    final = built.milestones[-1].model
    client, model = mirror.book.client, mirror.model(final)
    client.delete_logged_model_tag(model, "mergeline.lineage")
    client.delete_logged_model_tag(model, "mergeline.score")
    uri = f"sqlite:///{database}"
    earlier = tracked_lineage(uri).models[final.key]
    assert {parent.key for parent in earlier.parents} == {parent.key for parent in read_lineage(store.root).above(final.key)}
    assert earlier.score == pytest.approx(read_lineage(store.root).models[final.key].score, abs=1e-6)  # MLflow is given six places
    weights = store.directory(final) / "checkpoint" / "model.safetensors"
    shutil.rmtree(store.directory(final))
    write_record(store, final, START + 500)
    weights.write_bytes(b"other" * 200)
    record = store.by_key(final.key)
    assert record is not None
    facts = {name: record.content[name] for name in ("started", "finished", "seconds", "versions")}
    store.finish(final, Outcome(weights.parent, record.metrics, record.content["details"]), facts)
    complete(open_mirror(built, store, database))
    assert tracked_lineage(uri).models == read_lineage(store.root).models
    assert tracked_lineage(uri).models[final.key].digest != earlier.digest


def test_tags_that_somebody_changed_are_told_with_their_model(whole: Whole, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{shutil.copy(whole[0].workspace / 'mlflow.db', tmp_path / 'mlflow.db')}"
    client = MlflowClient(tracking_uri=uri)
    model = next(iter(client.search_logged_models([whole[2].book.experiment_id])))
    client.set_logged_model_tags(model.model_id, {"mergeline.lineage": "{torn"})
    with pytest.raises(InputError, match=f"the tags of the model {model.model_id} cannot be read .JSONDecodeError"):
        tracked_lineage(uri)


def test_lineage_looks_on_where_one_of_a_workspace_s_servers_is_away(
    whole: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = tmp_path / "ws"
    shutil.copytree(whole[0].workspace, workspace)
    for place, content in {"a": {"uri": "http://127.0.0.1:1"}, "b": {"no": "uri"}}.items():
        (workspace / "runs" / place).mkdir()
        (workspace / "runs" / place / "tracking.json").write_text(json.dumps(content))
    told = ended(capsys, "lineage", "models:/tiny@latest-merged", "--workspace", workspace)
    assert told.code == 0, told.err
    assert whole[0].milestones[-1].model.key in told.out
