"""The lineage of a checkpoint, read from records: up to the base, down to all that came of it; found by place, copy, digest and key."""

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from commands import ended
from mirrored import TINY, make
from PIL import Image

from foundation.errors import InputError
from pipeline.config.experiment import build
from pipeline.lineage import Lineage, Parent, reached, read_lineage
from pipeline.lineage_names import find_data, find_model, runs_of
from pipeline.report.lineage_picture import HEIGHT, WIDTH, corners, draw_lineage, placed
from pipeline.tracking.lineage import ancestors_of, parents_of


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
    [
        ("merge-", "begins the names of 2 models"),
        ("merged", "no model here"),
        ("sha256:0000000", "no model here"),
        ("x" * 5000, "no model here is called 'x{200}…'"),
        ("~nobody-of-that-name/x", "no model here"),
        ("..", "is no checkpoint"),
        ("", "begins the names of 5 models"),
    ],
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


def test_the_picture_puts_every_model_below_what_it_is_made_from(lineage: Lineage, last: str) -> None:
    keys = reached(lineage, last, down=False)
    places = placed(lineage, keys)
    assert len(set(places.values())) == len(keys) == 5
    assert all(places[parent.key][0] < places[key][0] for key in keys for parent in lineage.above(key))
    at = corners(lineage, keys)
    assert all(at[parent.key][1] < at[key][1] for key in keys for parent in lineage.above(key))
    inside = [(a, b) for a in keys for b in keys if a < b and abs(at[a][0] - at[b][0]) < WIDTH and abs(at[a][1] - at[b][1]) < HEIGHT]
    assert not inside
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


@pytest.mark.parametrize(("picture", "code"), [("file/x.png", 2), ("/proc/none/x.png", 4)])
def test_a_picture_that_cannot_be_written_is_refused(
    workspace: Path, last: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, picture: str, code: int
) -> None:
    (tmp_path / "file").touch()
    result = ended(capsys, "lineage", last, "--workspace", workspace, "--picture", tmp_path / picture)
    assert result.code == code
    assert "--picture" in result.err


def test_a_run_s_name_or_directory_means_what_it_ends_with(workspace: Path, lineage: Lineage, last: str, tmp_path: Path) -> None:
    runs = runs_of(workspace)
    assert runs == {"tiny": [("wise_ft, seed 0", last)]}
    for text in ("tiny", str(workspace / "runs" / "tiny")):
        assert find_model(lineage, text, runs) == last
    several = {"both": [("a, seed 0", "merge-1"), ("b, seed 0", "merge-2")]}
    with pytest.raises(
        InputError, match=r"both ends with 2 models; name one of them by its key:\n  a, seed 0: merge-1\n  b, seed 0: merge-2"
    ):
        find_model(lineage, "both", several)


def test_a_data_set_leads_to_every_model_that_learned_from_it(lineage: Lineage) -> None:
    """The base has seen a few of `count` too; the fine-tune of stage 2 learned it, and one merge came of that."""
    name, digests = find_data(lineage, "count") or ("", ())
    assert name == "count"
    assert find_data(lineage, digests[0][:10]) == (name, digests)
    assert find_data(lineage, "counting") is None
    kinds_of = [(each.role, each.key.partition("-")[0]) for each in lineage.learners("count")]
    assert kinds_of == [("learned", "pretrain"), ("learned", "finetune")]
    tuned = lineage.learners("count")[1].key
    assert [each.name for each in lineage.models[tuned].data] == ["count"]
    assert lineage.learners("count", digests) == lineage.learners("count")
    assert lineage.learners("count", ["0" * 32]) == ()
    assert [each.partition("-")[0] for each in reached(lineage, tuned, down=True)] == ["finetune", "merge"]


def test_rehearsed_and_measured_data_count_too(tmp_path: Path) -> None:
    make(tmp_path / "replay", TINY, "strategy=replay")
    make(tmp_path / "ewc", TINY, "strategy=ewc")
    for strategy, uses in (("replay", ["learned", "rehearsed"]), ("ewc", ["learned", "measured"])):
        found = read_lineage(tmp_path / strategy / "store").learners("parity")
        assert [each.role for each in found if each.key.startswith("finetune-")] == uses


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Missing argument 'MODEL'"),
        (["tiny", "--data", "count"], 2, "both a model"),
        (["--data", "cuont"], 3, "did you mean 'count'"),
        (["count"], 3, "count is no model but a data set; see what came of it with --data count"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    done = ended(capsys, "lineage", *arguments, "--workspace", workspace)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_every_kind_of_merge_tells_what_it_was_made_from_as_what(tmp_path: Path) -> None:
    for alpha in ("alpha={adaptive: {rule: isotropic}}", "alpha={search: {points: 3, samples: 8}}", "alpha=0.5"):
        built = build(TINY, [f"workspace={tmp_path}", alpha])
        merged = built.milestones[-1].model
        roles = {parent.key: role for parent, (role, child) in ancestors_of(merged).items() if child.key == merged.key}
        assert {"previous", "tuned"} <= set(roles.values()), alpha
        assert set(roles) == {parent.key for parent in parents_of(merged)}


def test_a_very_long_picture_is_drawn(lineage: Lineage, last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer dots per inch: a picture of any number of models can be made and opened."""
    monkeypatch.setattr("pipeline.report.lineage_picture.MOST_DOTS", 1000)
    model = lineage.models[last]
    chain = {
        f"merge-{n}": replace(model, key=f"merge-{n}", finished=float(n), parents=(Parent("start", f"merge-{n - 1}"),)) for n in range(30)
    }
    width, height = Image.open(io.BytesIO(draw_lineage(Lineage(chain), "merge-29", down=False))).size
    assert 990 <= height <= 1000
    assert 0 < width < height


def test_a_registered_version_s_source_means_its_checkpoint(lineage: Lineage, last: str) -> None:
    """As it is written: with signs that a URI has not, and by digest where the place is too long."""
    apart = replace(lineage.models[last], place="/data/my runs/100%/checkpoint")
    elsewhere = Lineage({**lineage.models, last: apart})
    assert find_model(elsewhere, "mergeline:///data/my%20runs/100%25/checkpoint") == last
    assert find_model(elsewhere, f"mergeline://sha256/{apart.digest}") == last


def test_a_run_whose_last_model_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It goes on, it failed, or its record was removed."""
    built, _ = make(tmp_path, steps=4)
    told = ended(capsys, "lineage", built.name, "--workspace", tmp_path)
    assert told.code == 3
    assert f"{built.name} ends with {built.milestones[-1].model.key}, which is not stored: run it (again) to its end" in told.err
    assert len(told.err.splitlines()) == 1
