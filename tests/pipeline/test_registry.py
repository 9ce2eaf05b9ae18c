"""Registered models in a real MLflow database: a version for every merged checkpoint, made once, and the two aliases."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mirrored import START, TINY, complete, make, open_mirror, write_record

from pipeline.config.experiment import Built, build
from pipeline.recipes.milestone import Role
from pipeline.step import Outcome
from pipeline.steps import Evaluate, Merge
from pipeline.store import Store
from pipeline.tracking.mirror import Mirror
from pipeline.tracking.registry import LONGEST_SOURCE, register, registered_name, source_of
from pipeline.tracking.versions import ENDED_TAG

VALIDATION = "evaluate.split=validation"
COMPARED = """
recipe: compare
name: two
seeds: [0, 1]
common:
  base: {pretrain: digits_llava, settings: {tower_steps: 3, language_steps: 3, most_samples: 40, threads: 1}}
  tasks: [parity, count]
  train: {samples: 64, max_steps: 8, batch_size: 8}
  evaluate: {samples: 8}
arms:
  averaged: {recipe: wise_ft, alpha: 0.5}
  kept: {recipe: wise_ft, alpha: 0.9}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, Store]:
    """A finished experiment of two stages with merges; tests only read it."""
    return make(tmp_path_factory.mktemp("registry"))


def registered(mirror: Mirror) -> Mirror:
    """The experiment's merged checkpoints in the registry alone, without its runs: they take seconds to write."""
    register(mirror.book, mirror.built, mirror.store, lambda step: model_of(mirror))
    return mirror


def model_of(mirror: Mirror) -> str:
    """One model for all versions."""
    known = mirror.book.find_model("model")
    return known or mirror.book.model("model", "model", mirror.book.run("run", "run", {}, 0), {}, {})


def versions(mirror: Mirror, name: str = "tiny") -> list[Any]:
    found = mirror.book.client.search_model_versions(f"name = '{name}'")
    return sorted(found, key=lambda version: int(version.version))


def aliases(mirror: Mirror, name: str = "tiny") -> dict[str, str]:
    return {alias: str(version) for alias, version in mirror.book.client.get_registered_model(name).aliases.items()}


def facts(found: list[Any]) -> list[tuple[Any, ...]]:
    return [(each.version, each.source, each.description, each.tags) for each in found]


def remake(built: Built, store: Store, step: Merge) -> None:
    """The step's checkpoint once more, with other bytes and at a later time."""
    record = store.by_key(step.key)
    assert record is not None
    place = store.directory(step) / "checkpoint"
    (place / "model.safetensors").write_bytes(b"other" * 200)
    told = {key: record.content[key] for key in ("started", "seconds", "versions")} | {"finished": record.content["finished"] + 500}
    store.finish(step, Outcome(place, record.metrics, record.content["details"]), told)


def also(store: Store, started: float, *overrides: str) -> Built:
    """Another experiment in the same store, with records of what it has of its own."""
    built = build(TINY, [f"workspace={store.root.parent}", *overrides])
    for step in built.steps:
        if store.by_key(step.key) is None:
            write_record(store, step, started)
    return built


def test_a_version_for_each_merged_checkpoint_in_order_of_stage(made: tuple[Built, Store], database: Path) -> None:
    built, store = made
    mirror = open_mirror(built, store, database)
    complete(mirror)
    merges = [each.model for each in built.milestones if each.role is Role.AFTER]
    first, second = versions(mirror)
    for version, step, task in ((first, merges[0], "parity"), (second, merges[1], "count")):
        record = store.record(step)
        assert record is not None
        assert version.source == f"mergeline://{record.checkpoint}"
        assert version.tags["mergeline.step"] == step.key
        assert version.tags["mergeline.digest"] == f"sha256:{record.digest}"
        assert version.tags["mergeline.uri"] == str(record.checkpoint)
        assert (version.tags["mergeline.trained"], version.tags["mergeline.run"]) == (task, "tiny")
        assert (version.tags["mergeline.arm"], version.tags["mergeline.seed"]) == ("wise_ft", "0")
        model = mirror.book.client.get_logged_model(version.tags["mergeline.model"])
        assert model.tags["mergeline.step"] == step.key
        assert f"#/experiments/{mirror.book.experiment_id}/models/{model.model_id}" in version.description
        assert "previous weight 0.5 (alpha), tuned weight 0.5" in version.description
        assert mirror.book.client.get_run(version.run_id).data.tags["mergeline.step"] == step.key
    assert [version.tags["mergeline.stage"] for version in (first, second)] == ["1", "2"]
    assert not list(database.parent.rglob("*.safetensors"))


def test_written_again_or_from_records_it_makes_no_second_version(made: tuple[Built, Store], database: Path) -> None:
    built, store = made
    once = facts(versions(registered(open_mirror(built, store, database))))
    again = registered(registered(open_mirror(build(TINY, [f"workspace={built.workspace}"]), Store(store.root), database)))
    assert facts(versions(again)) == once
    assert len(once) == 2


def test_a_step_made_again_with_other_bytes_is_a_new_version(tmp_path: Path, database: Path) -> None:
    built, store = make(tmp_path / "ws")
    registered(open_mirror(built, store, database))
    last = built.milestones[-1].model
    assert isinstance(last, Merge)
    remake(built, store, last)
    mirror = registered(open_mirror(built, store, database))
    found = versions(mirror)
    assert [version.tags["mergeline.stage"] for version in found] == ["1", "2", "2"]
    assert found[1].tags["mergeline.digest"] != found[2].tags["mergeline.digest"]
    assert aliases(mirror) == {"latest-merged": "3"}


def test_an_unfinished_run_registers_what_it_has_and_is_not_the_latest(tmp_path: Path, database: Path) -> None:
    built, store = make(tmp_path / "ws", steps=5)
    merged = [step for step in built.steps[:5] if isinstance(step, Merge)]
    assert len(merged) == 1
    mirror = registered(open_mirror(built, store, database))
    assert [version.tags["mergeline.step"] for version in versions(mirror)] == [merged[0].key]
    assert aliases(mirror) == {}


def test_the_latest_is_that_of_the_newest_run_in_whatever_order_they_are_written(tmp_path: Path, database: Path) -> None:
    """The newer one is written first: the older one, which comes later, takes nothing from it."""
    older, store = make(tmp_path / "ws", TINY, "alpha=0.3")
    newer = also(store, START + 1000, "alpha=0.7")
    registered(open_mirror(newer, store, database))
    mirror = registered(open_mirror(older, store, database))
    (latest,) = [version for version in versions(mirror) if str(version.version) == aliases(mirror)["latest-merged"]]
    assert latest.tags["mergeline.step"] == newer.milestones[-1].model.key
    assert len([version for version in versions(mirror) if ENDED_TAG in version.tags]) == 2


def test_best_is_not_set_on_test_scores_and_the_page_says_why(made: tuple[Built, Store], database: Path) -> None:
    built, store = made
    mirror = registered(open_mirror(built, store, database))
    assert set(aliases(mirror)) == {"latest-merged"}
    text = mirror.book.client.get_registered_model("tiny").description
    assert "`best`: not set, because no version has a score on validation data" in text
    assert "evaluate.split=validation" in text


def test_best_is_the_highest_on_validation_data(tmp_path: Path, database: Path) -> None:
    """The same models are asked once more, on validation data: the versions are the same, and now one of them is the best."""
    built, store = make(tmp_path / "ws")
    registered(open_mirror(built, store, database))
    asked = also(store, START + 1000, VALIDATION)
    mirror = registered(open_mirror(asked, store, database))
    assert len(versions(mirror)) == 2
    means = {}
    for milestone in asked.milestones:
        record = store.by_key(milestone.evaluation.key)
        assert record is not None
        means[milestone.model.key] = sum(score["accuracy"] for score in record.metrics.values()) / len(record.metrics)
    expected = max((version for version in versions(mirror)), key=lambda version: means[version.tags["mergeline.step"]])
    assert aliases(mirror)["best"] == str(expected.version)
    assert f"`best`: version {expected.version}, with" in mirror.book.client.get_registered_model("tiny").description


class Crash(BaseException):
    """Not an Exception, so that nothing can swallow it."""


class Client:
    """A client that hands every call on, and does `after` what it was told to count."""

    def __init__(self, client: Any, after: Callable[[str, Any, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        self._client, self._after = client, after

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if not name.startswith(("create_", "set_", "update_")):
            return real

        def call(*arguments: Any, **keywords: Any) -> Any:
            return self._after(name, real, arguments, keywords)

        return call


def test_interrupted_after_any_call_it_comes_to_the_same(made: tuple[Built, Store], tmp_path: Path, empty_database: Path) -> None:
    built, store = made
    (tmp_path / "whole").mkdir()
    straight = registered(open_mirror(built, store, Path(shutil.copy(empty_database, tmp_path / "whole" / "mlflow.db"))))
    torn = Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))
    crashes = 0
    while crashes < 20:
        mirror, left = open_mirror(built, store, torn), [1]  # each attempt comes one call further

        def after(name: str, real: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], left: list[int] = left) -> Any:
            made_ = real(*arguments, **keywords)
            left[0] -= 1
            if not left[0]:
                raise Crash
            return made_

        model_of(mirror)
        mirror.book.client = Client(mirror.book.client, after)
        try:
            registered(mirror)
            break
        except Crash:
            crashes += 1
    assert 5 <= crashes < 20
    mirror = registered(open_mirror(built, store, torn))

    def plain(of: Mirror) -> list[Any]:
        return [(each.version, each.source, {**each.tags, "mergeline.model": ""}) for each in versions(of)]

    assert plain(mirror) == plain(straight)
    assert aliases(mirror) == aliases(straight)
    described = [of.book.client.get_registered_model("tiny").description for of in (mirror, straight)]
    assert described[0] == described[1]


def test_when_another_run_is_quicker_one_version_is_left(made: tuple[Built, Store], database: Path) -> None:
    """Each version is made by someone else between looking for it and making it."""
    built, store = made
    mirror = open_mirror(built, store, database)

    def twice(name: str, real: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name == "create_model_version":
            real(*arguments, **keywords)
        return real(*arguments, **keywords)

    mirror.book.client = Client(mirror.book.client, twice)
    registered(mirror)
    found = versions(mirror)
    assert len({version.tags["mergeline.step"] for version in found}) == len(found) == 2


def test_what_a_user_writes_on_the_page_stays(made: tuple[Built, Store], database: Path) -> None:
    built, store = made
    mirror = registered(open_mirror(built, store, database))
    mirror.book.client.update_registered_model("tiny", "Ours. Ask the vision team before you deploy.")
    registered(open_mirror(built, store, database))
    assert mirror.book.client.get_registered_model("tiny").description == "Ours. Ask the vision team before you deploy."


def test_several_arms_and_seeds_in_one_registered_model(tmp_path: Path, database: Path) -> None:
    (tmp_path / "two.yaml").write_text(COMPARED)
    built, store = make(tmp_path / "ws", tmp_path / "two.yaml")
    mirror = registered(open_mirror(built, store, database))
    found = versions(mirror, "two")
    told = [(version.tags["mergeline.stage"], version.tags["mergeline.arm"], version.tags["mergeline.seed"]) for version in found]
    assert len(told) == len(set(told)) == 8
    assert [stage for stage, _, _ in told] == ["1"] * 4 + ["2"] * 4
    assert aliases(mirror, "two") == {"latest-merged": "8"}


def test_without_merges_there_is_no_registered_model(tmp_path: Path, database: Path) -> None:
    text = TINY.read_text().replace("recipe: wise_ft", "recipe: sequential").replace("alpha: 0.5\n", "").replace("merge: {actors: 2}\n", "")
    (tmp_path / "plain.yaml").write_text(text)
    built, store = make(tmp_path / "ws", tmp_path / "plain.yaml")
    assert not [step for step in built.steps if not isinstance(step, Evaluate) and step.kind.startswith("merge")]
    mirror = registered(open_mirror(built, store, database))
    assert not mirror.book.client.search_registered_models()


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "tiny"),
        (["tracking.experiment=team/vision:digits"], "team-vision-digits"),
        (["tracking.experiment=team", "tracking.registered_model=it's 50%"], "it-s 50-"),
    ],
)
def test_the_name_is_one_that_mlflow_takes(tmp_path: Path, overrides: list[str], name: str) -> None:
    assert registered_name(build(TINY, [f"workspace={tmp_path}", *overrides])) == name


def test_a_place_that_mlflow_has_no_room_for_is_told_by_digest(made: tuple[Built, Store]) -> None:
    built, store = made
    record = store.by_key(built.milestones[-1].model.key)
    assert record is not None
    assert source_of(record) == f"mergeline://{record.checkpoint}"
    far = replace(record, directory=Path("/" + "deep/" * 120))
    assert source_of(far) == f"mergeline://sha256/{record.digest}"
    assert len(source_of(far)) <= LONGEST_SOURCE
