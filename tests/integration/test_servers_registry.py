"""Registered models and the lineage on a team's server: what it takes as a source, who may add to it, what it tells without a store."""

from pathlib import Path

import pytest
from mirrored import TINY, complete, make
from tracking_server import Server

from pipeline.config.experiment import Built
from pipeline.lineage import read_lineage
from pipeline.lineage_names import find_model
from pipeline.store import Store
from pipeline.tracking.ancestry import asked_of, tracked_lineage
from pipeline.tracking.book import Book
from pipeline.tracking.mirror import Mirror

NAME = "a registry"
APART = "base.settings.tower_steps=4"  # models that no other test writes to this server


def mirrored(built: Built, store: Store, uri: str) -> Mirror:
    mirror = Mirror(Book(uri, NAME, built.workspace / "artifacts", built.identity[:16]), built, store)
    complete(mirror)
    return mirror


def test_a_second_member_adds_no_second_version(as_ann: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server takes a place of our own scheme as a source; the store's lineage and the server's are the same, models and names."""
    built, store = make(tmp_path, TINY, f"tracking.experiment={NAME}", APART)
    mirrored(built, store, as_ann.uri)
    for name, value in as_ann.user("bob").environment().items():
        monkeypatch.setenv(name, value)
    mirror = mirrored(built, store, as_ann.uri)
    client = mirror.book.client
    versions = sorted(client.search_model_versions(f"name = '{NAME}'"), key=lambda version: int(version.version))
    places = [store.by_key(milestone.model.key) for milestone in built.milestones if milestone.role.value == "after"]
    assert [version.source for version in versions] == [f"mergeline://{record.checkpoint}" for record in places if record is not None]
    lineage, last = tracked_lineage(as_ann.uri), built.milestones[-1].model.key
    mine = read_lineage(store.root)
    assert {key: lineage.models[key] for key in mine.models} == dict(mine.models)
    assert find_model(lineage, f"models:/{NAME}@latest-merged", asked=asked_of(as_ann.uri, lineage)) == last
    logged = client.get_logged_model(versions[1].tags["mergeline.model"])
    assert logged.tags["mlflow.modelVersions"].count(NAME) == 1
    assert [file.path for file in client.list_artifacts(mirror.pipeline_run(), "lineage")] == ["lineage/lineage.png"]
