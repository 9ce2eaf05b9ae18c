"""The lineage of a checkpoint, read from records: up to the base, down to all that came of it; found by place, copy, digest and key."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from commands import ended
from mirrored import Whole, make

from foundation.errors import InputError
from pipeline.lineage import Lineage, find_model, read_lineage
from pipeline.report.lineage_picture import draw_lineage, placed, reached
from pipeline.tracking.ancestry import tracked_lineage


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished experiment of two stages with merges: records and files as a run leaves them."""
    workspace = tmp_path_factory.mktemp("lineage")
    make(workspace)
    return workspace


@pytest.fixture(scope="module")
def lineage(workspace: Path) -> Lineage:
    return read_lineage(workspace / "store")


@pytest.fixture(scope="module")
def last(lineage: Lineage) -> str:
    """The merge that nothing was made from."""
    merges = [key for key in lineage.models if key.startswith("merge-")]
    (last,) = [key for key in merges if not lineage.below(key)]
    return last


def kinds(lineage: Lineage, key: str) -> list[tuple[str, str]]:
    return [(parent.role, parent.key.partition("-")[0]) for parent in lineage.above(key)]


def test_a_merge_comes_from_the_previous_and_the_tuned_model(lineage: Lineage, last: str) -> None:
    assert kinds(lineage, last) == [("previous", "merge"), ("tuned", "finetune")]
    previous, tuned = (parent.key for parent in lineage.above(last))
    assert kinds(lineage, tuned) == [("start", "merge")]
    assert lineage.above(tuned)[0].key == previous
    assert kinds(lineage, previous) == [("previous", "pretrain"), ("tuned", "finetune")]


def test_down_is_up_read_backwards(lineage: Lineage) -> None:
    up = {(parent.key, parent.role, child) for child in lineage.models for parent in lineage.above(child)}
    down = {(key, child.role, child.key) for key in lineage.models for child in lineage.below(key)}
    assert up == down
    assert up


def test_a_model_is_found_by_place_copy_digest_and_key(lineage: Lineage, last: str, tmp_path: Path) -> None:
    model = lineage.models[last]
    copy = shutil.copytree(model.place, tmp_path / "copy")
    link = tmp_path / "link"
    link.symlink_to(model.place)
    for text in (model.place, str(copy), str(link), model.digest, f"sha256:{model.digest[:12]}", last, last[:14]):
        assert find_model(lineage, text) == last


@pytest.mark.parametrize(
    ("text", "said"),
    [("merge-", "begins the names of 2 models"), ("merged", "no model here"), ("sha256:0000000", "no model here")],
)
def test_what_names_no_single_model_is_refused(lineage: Lineage, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_model(lineage, text)


def test_a_directory_that_is_another_model_is_refused(lineage: Lineage, last: str, tmp_path: Path) -> None:
    other = Path(shutil.copytree(lineage.models[last].place, tmp_path / "other"))
    (other / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(InputError, match="is no checkpoint that is known here, nor a copy"):
        find_model(lineage, str(other))
    with pytest.raises(InputError, match=r"has no config\.json"):
        find_model(lineage, str(tmp_path))


def test_how_it_was_made(lineage: Lineage, last: str) -> None:
    assert lineage.models[last].how == "merged by wise_ft: previous weight 0.5 (alpha), tuned weight 0.5"
    tuned = lineage.above(last)[1].key
    assert lineage.models[tuned].how.startswith("learned count: ")


def test_the_picture_puts_every_model_to_the_right_of_what_it_is_made_from(lineage: Lineage, last: str) -> None:
    keys = reached(lineage, last, down=False)
    places = placed(lineage, keys)
    assert len(set(places.values())) == len(keys) == 5
    assert all(places[parent.key][0] < places[key][0] for key in keys for parent in lineage.above(key))
    assert draw_lineage(lineage, last, down=False) == draw_lineage(lineage, last, down=False)


def test_the_command(workspace: Path, last: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "new" / "lineage.png"
    done = ended(capsys, "lineage", last, "--workspace", workspace, "--picture", picture)
    assert done.code == 0, done.err
    for told in ("previous: merge-", "start: merge-", "(told above)"):
        assert told in done.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert ended(capsys, "lineage", last, "--workspace", tmp_path).code == 3
    assert ended(capsys, "lineage", last, "--workspace", workspace, "--picture", tmp_path / "lineage.svg").code == 2


def test_mlflow_alone_tells_the_same(whole: Whole, last: str) -> None:
    """Another workspace of the same experiment: keys, digests and scores are equal, so are the trees."""
    _, store, mirror, _ = whole
    by_records, by_mlflow = read_lineage(store.root), tracked_lineage(mirror.book.client.tracking_uri)
    mirrored = {key: by_records.models[key] for key in by_mlflow.models}
    assert len(mirrored) == len(by_records.models) == 5
    for key, model in mirrored.items():
        told = by_mlflow.models[key]
        assert told.score == pytest.approx(model.score, abs=1e-6)  # MLflow is given six places
        assert replace(told, score=None) == replace(model, score=None)


def test_a_tracking_database_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*none\.db"):
        tracked_lineage(f"sqlite:///{tmp_path / 'none.db'}")
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("targets: [parity]\n" * 20)
    with pytest.raises(InputError, match=r"is no database of MLflow \(file is not a database\)"):
        tracked_lineage(f"sqlite:///{tmp_path / 'mlflow.db'}")


@pytest.mark.parametrize(("picture", "code"), [("file/x.png", 2), ("/proc/none/x.png", 4)])
def test_a_picture_that_cannot_be_written_is_refused(
    workspace: Path, last: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, picture: str, code: int
) -> None:
    (tmp_path / "file").touch()
    result = ended(capsys, "lineage", last, "--workspace", workspace, "--picture", tmp_path / picture)
    assert result.code == code
    assert "--picture" in result.err
