"""What an earlier version left: its store is taken up where it stands, or refused with the version that wrote it.

`old_store_1/` is a store in format 1, and `old_keys_1.json` the keys of the steps of two experiments, by title, as of that time. A change
that gives a step another key makes everybody's old runs start afresh: such a change bumps the step's `version`, stands in the changelog,
and comes with new files here.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
from commands import ended
from crash_points import pipeline, result, run

from foundation.errors import InputError
from foundation.files import file_sha256
from pipeline.config.experiment import build
from pipeline.plan import needed
from pipeline.step import topological
from pipeline.store import Store
from pipeline.titles import step_titles, title_of

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
KEYS: dict[str, dict[str, str]] = json.loads((HERE / "old_keys_1.json").read_text())


@pytest.fixture
def old(tmp_path: Path) -> Store:
    return Store(shutil.copytree(HERE / "old_store_1", tmp_path / "store"))


def test_an_old_store_is_taken_as_it_is(old: Store) -> None:
    assert needed(pipeline(stages=1), old) == {}
    records = {step.kind: old.record(step) for step in topological(pipeline(stages=1))}
    assert all(record is not None for record in records.values())
    assert all(record.content["format"] == 1 for record in records.values() if record)


def test_an_old_run_that_was_interrupted_goes_on_to_the_same_bytes(old: Store) -> None:
    before = result(old.root)
    merge = next(step for step in topological(pipeline(stages=1)) if step.kind == "merge")
    directory = old.directory(merge)
    weights = file_sha256(directory / "checkpoint" / "model.safetensors")
    (directory / "record.json").unlink()
    shutil.rmtree(directory / "checkpoint")
    (directory / "work").mkdir()
    (directory / ".checkpoint.0a1b2c3d.tmp").mkdir()
    run(old.root, stages=1)
    assert (old.root.parent / "store.started").read_text().split() == [merge.key]
    assert file_sha256(directory / "checkpoint" / "model.safetensors") == weights  # the card beside it may differ: it names our version
    assert result(old.root).keys() == before.keys()
    assert sorted(path.name for path in directory.iterdir()) == ["checkpoint", "record.json"]


@pytest.mark.parametrize("file", KEYS)
def test_the_steps_of_an_old_experiment_keep_their_keys(file: str, tmp_path: Path) -> None:
    built = build(REPOSITORY / file, [f"workspace={tmp_path}"])
    titles = step_titles(built.milestones)
    assert {title_of(step, titles): step.key for step in built.steps} == KEYS[file]


@pytest.mark.parametrize(("number", "by"), [(0, "0.0.1"), (2, "9.1.0"), (None, None)])
def test_another_format_is_refused_with_the_version_that_wrote_it(old: Store, number: int | None, by: str | None) -> None:
    step = topological(pipeline(stages=1))[0]
    path = old.directory(step) / "record.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "format": number, "versions": {"mergeline": by} if by else None}))
    message = rf"is not a record in format 1, .* but in {number}, written by version {by or 'unknown'}; go on with that version, or remove"
    with pytest.raises(InputError, match=message):
        old.record(step)


def test_a_command_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    tiny = REPOSITORY / "tests" / "pipeline" / "tiny.yaml"
    key = next(iter(KEYS["tests/pipeline/tiny.yaml"].values()))
    (tmp_path / "store" / key).mkdir(parents=True)
    (tmp_path / "store" / key / "record.json").write_text(json.dumps({"format": 7, "versions": {"mergeline": "9.1.0"}}))
    for command in ("plan", "run"):
        told = ended(capsys, command, tiny, f"workspace={tmp_path}")
        assert told.code == 3, told.said
        assert "written by version 9.1.0" in told.err
