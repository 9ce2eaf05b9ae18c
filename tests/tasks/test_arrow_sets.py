"""Sets over Arrow files: identity, splits that never mix, several files and roots, labels, and what is refused."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import published_data
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_data import encoded, put

from foundation.errors import ConfigError, InputError
from tasks.arrow import reading, writing
from tasks.arrow.apart import Apart
from tasks.arrow.convert import convert
from tasks.arrow.drafts import Options
from tasks.arrow.folders import folder_set
from tasks.arrow.layout import CAPTIONS, LABELS, Layout
from tasks.arrow.sets import arrow_set, files_set, joined_set
from tasks.arrow.writing import ArrowWriter
from tasks.pairs.records import Kind, Labelled, PairSet
from tasks.task import Split


def written(path: Path, layout: Layout, rows: list[dict]) -> Path:
    """An Arrow file of these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with ArrowWriter(path, layout, {}) as writer:
        for row in rows:
            writer.add(row)
    return path


def captions(path: Path, numbers: list[int], image: int | None = None) -> Path:
    """A file of captions; with `image`, all rows show the same picture."""
    rows = [
        {"image": encoded(number if image is None else image), "caption": [f"c{number}"], "image_id": str(number), "split": ""}
        for number in numbers
    ]
    return written(path, CAPTIONS, rows)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    convert("coco", published_data.coco(tmp_path / "root"), tmp_path / "out")
    return tmp_path / "out"


def test_a_set_is_known_by_contents_and_not_by_places(coco: Path, tmp_path: Path) -> None:
    shutil.copytree(coco, tmp_path / "elsewhere")
    here, there = arrow_set("coco", coco), arrow_set("coco", tmp_path / "elsewhere")
    assert here == there
    assert here != arrow_set("coco", coco, variant="train_only")
    assert str(tmp_path) not in repr(here)
    assert here.records(Split.TEST)[0] == there.records(Split.TEST)[0]


def test_the_digest_is_the_files_own_and_is_not_read_twice(coco: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from foundation.files import file_sha256

    pairs = arrow_set("coco", coco)
    assert [file.digest for file in pairs.test] == [file_sha256(coco / "coco_caption_karpathy_test.arrow")]
    (coco / ".digests.json").unlink()
    assert arrow_set("coco", coco, cache=tmp_path / "cache") == pairs
    monkeypatch.setattr(reading, "file_digest", lambda *_: pytest.fail("a file was read again"))
    convert("coco", published_data.coco(tmp_path / "root"), tmp_path / "new")
    assert arrow_set("coco", tmp_path / "new") == pairs


def test_changed_files_are_refused(coco: Path, tmp_path: Path) -> None:
    pairs = arrow_set("coco", coco)
    root = published_data.coco(tmp_path / "other", [*published_data.COCO[:-1], ("test", 74)])
    convert("coco", root, coco, Options(replace=True))
    with pytest.raises(InputError, match=r"karpathy_test\.arrow: has changed since set 'coco' was made from it; run the experiment again"):
        pairs.records(Split.TEST)
    assert pairs.records(Split.VALIDATION)[0].captions == ("Zebra 42 on grass.", "an animal, 42", "bare 42")


def test_records_travel_to_other_processes(coco: Path) -> None:
    records = arrow_set("coco", coco).records(Split.TRAIN)
    sent = pickle.loads(pickle.dumps(records))
    assert list(sent) == list(records)
    assert sent[1].image().tobytes() == records[1].image().tobytes()
    assert [record.key for record in records[1:]] == [records[1].key, records[2].key]
    assert records[-1] == records[2]
    with pytest.raises(IndexError):
        records[3]


def test_nothing_is_decoded_before_it_is_asked_for(coco: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "decode", lambda *_: pytest.fail("an image was decoded"))
    assert len(list(arrow_set("coco", coco).records(Split.TRAIN))) == 3


def test_files_in_several_roots(tmp_path: Path) -> None:
    for part in ("train", "restval", "val", "test"):
        options = Options(only=(f"coco_caption_karpathy_{part}",))
        convert("coco", published_data.coco(tmp_path / "root"), tmp_path / f"out_{part}", options)
    roots = [tmp_path / f"out_{part}" for part in ("test", "val", "train", "restval")]
    assert len(arrow_set("coco", roots).records(Split.TRAIN)) == 3
    with pytest.raises(InputError, match=r"coco: there is no coco_caption_karpathy_restval\.arrow in .*data convert coco --root"):
        arrow_set("coco", roots[:3])


def test_shards_over_roots_leave_no_gap(tmp_path: Path) -> None:
    for place, number in enumerate((0, 2, 1)):
        captions(tmp_path / f"disk{place % 2}/sbu_{number}.arrow", [number])
    found = arrow_set("sbu", [tmp_path / "disk0", tmp_path / "disk1"])
    assert [record.captions for record in found.records(Split.TRAIN)] == [("c0",), ("c1",), ("c2",)]
    (tmp_path / "disk0/sbu_1.arrow").unlink()
    with pytest.raises(InputError, match=r"sbu: sbu_1\.arrow is missing from .*, which has sbu_2\.arrow"):
        arrow_set("sbu", [tmp_path / "disk0", tmp_path / "disk1"])


def test_sets_are_joined_in_order_and_kept_apart(coco: Path, tmp_path: Path) -> None:
    convert("visual_genome", published_data.visual_genome(tmp_path / "vg"), tmp_path / "vg_out")
    genome = arrow_set("visual_genome", tmp_path / "vg_out")
    both = joined_set("both", [arrow_set("coco", coco), genome])
    assert [record.key.split("/")[0] for record in both.records(Split.TRAIN)][-3:] == ["vg"] * 3
    assert len(both.records(Split.TRAIN)) == 6
    nlvr2 = convert("nlvr2", published_data.nlvr2(tmp_path / "nlvr2"), tmp_path / "nlvr2_out") and arrow_set(
        "nlvr2", tmp_path / "nlvr2_out"
    )
    with pytest.raises(ConfigError, match=r"only sets of one kind can be joined, these are coco \(captions\), nlvr2 \(comparisons\)"):
        joined_set("mixed", [arrow_set("coco", coco), nlvr2])


def test_no_image_is_in_two_splits_by_id(tmp_path: Path) -> None:
    train, test = captions(tmp_path / "a.arrow", [1, 2, 3]), captions(tmp_path / "b.arrow", [4, 3])
    with pytest.raises(
        InputError,
        match=r"set 'own': train and test share images by id \(1 are in two splits\), the first row 2 of a and row 1 of b; put each",
    ):
        files_set("own", Kind.CAPTIONS, train=train, test=test)
    assert len(files_set("own", Kind.CAPTIONS, train=train, test=test, apart=Apart.UNCHECKED).records(Split.TEST)) == 2


def test_no_image_is_in_two_splits_by_content(tmp_path: Path) -> None:
    train, shown = captions(tmp_path / "a.arrow", [1, 2], image=2), captions(tmp_path / "c.arrow", [7], image=2)
    files_set("own", Kind.CAPTIONS, train=train, validation=shown)  # their ids differ
    with pytest.raises(
        InputError, match=r"train and validation share images by content \(1 are in two splits\), the first row 0 of a and row 0 of c"
    ):
        files_set("own", Kind.CAPTIONS, train=train, validation=shown, apart=Apart.CONTENT, cache=tmp_path / "cache")
    with pytest.raises(InputError, match="by content"):  # from what was remembered
        files_set("own", Kind.CAPTIONS, train=train, validation=shown, apart=Apart.CONTENT, cache=tmp_path / "cache")


def test_files_of_other_writers_with_the_same_columns(tmp_path: Path) -> None:
    table = pa.table({"image": [encoded(1), encoded(2)], "caption": [["b", "a", "b"], ["c"]], "image_id": ["1", "2"], "split": ["t", "t"]})
    with pa.OSFile(str(tmp_path / "other.arrow"), "wb") as sink, pa.RecordBatchFileWriter(sink, table.schema) as writer:
        writer.write_table(table)
    records = files_set("other", Kind.CAPTIONS, train=tmp_path / "other.arrow").records(Split.TRAIN)
    assert [record.captions for record in records] == [("b", "a"), ("c",)]


def test_refused_files(coco: Path, tmp_path: Path) -> None:
    file = coco / "coco_caption_karpathy_val.arrow"
    with pytest.raises(
        InputError, match="has no column 'image_0', 'image_1', 'questions', 'answers', 'identifier', which comparisons need"
    ):
        files_set("own", Kind.COMPARISONS, train=file)
    with pytest.raises(ConfigError, match="questions need a vocabulary"):
        files_set("own", Kind.QUESTIONS, train=file)
    with pytest.raises(ConfigError, match="set 'own' names no files"):
        files_set("own", Kind.CAPTIONS)
    put(tmp_path / "cut.arrow", file.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"cut\.arrow: cannot be read as an Arrow file: .*; convert the data set again"):
        files_set("own", Kind.CAPTIONS, train=tmp_path / "cut.arrow")
    with pytest.raises(ConfigError, match="unknown variant of coco 'restvall'; did you mean 'restval'"):
        arrow_set("coco", coco, variant="restvall")
    with pytest.raises(InputError, match=r"has no files for the test split \(it has train\)"):
        files_set("own", Kind.CAPTIONS, train=file).records(Split.TEST)
    with pytest.raises(ConfigError, match="cannot give -1 records"):
        arrow_set("coco", coco).records(Split.TEST, -1)


def test_a_vocabulary_of_another_conversion_is_refused(tmp_path: Path) -> None:
    root = published_data.vqav2(tmp_path / "root")
    convert("vqav2", root, tmp_path / "out", Options(rest_images=2, least_answers=3))
    put(tmp_path / "out/vqav2_answers.json", {"answers": ["yes"]})
    with pytest.raises(InputError, match=r"was written with another vocabulary than .*vqav2_answers\.json; convert all files"):
        arrow_set("vqav2", tmp_path / "out")


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "image": st.binary(max_size=40),
                "caption": st.lists(st.text(max_size=8), max_size=3),
                "image_id": st.text(max_size=5),
                "split": st.just("train"),
            }
        ),
        max_size=12,
    ),
    st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_the_reader_gives_back_what_the_writer_wrote(tmp_path_factory: pytest.TempPathFactory, rows: list[dict], batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "BATCH_ROWS", batch)
        path = written(tmp_path_factory.mktemp("rows") / "rows.arrow", CAPTIONS, rows)
    held = reading.open_rows(str(path))
    assert len(held) == len(rows)
    for number in reversed(range(len(rows))):
        assert held.texts(number, CAPTIONS.names) == rows[number]
        assert held.image(number, "image") == rows[number]["image"]
    assert list(held.items("caption")) == [sum(len(row["caption"]) for row in rows[: number + 1]) for number in range(len(rows))]


def test_labels_in_arrow(tmp_path: Path) -> None:
    rows = [{"image": encoded(place), "label": label, "image_id": str(place), "split": ""} for place, label in enumerate(("b", "a", "b"))]
    train, test = written(tmp_path / "train.arrow", LABELS, rows[:2]), written(tmp_path / "test.arrow", LABELS, rows[2:])
    pairs = files_set("classes", Kind.LABELS, train=train, test=test)
    assert pairs.choices() == ("a", "b")
    assert [record.label for record in pairs.records(Split.TRAIN)] == ["b", "a"]


def test_labels_in_folders(tmp_path: Path) -> None:
    for number, name in enumerate(("train/dog/x.jpg", "train/cat/x.jpg", "train/cat/a/y.png", "test/dog/x.jpg")):
        put(tmp_path / name, encoded(number, "PNG" if name.endswith("png") else "JPEG"))
    put(tmp_path / "train/cat/.hidden", "")
    pairs = folder_set("animals", tmp_path / "train", test=tmp_path / "test")
    assert isinstance(pairs, PairSet)
    assert pairs.choices() == ("cat", "dog")
    train = pairs.records(Split.TRAIN)
    assert [(record.key, record.label) for record in train] == [("cat/a/y.png", "cat"), ("cat/x.jpg", "cat"), ("dog/x.jpg", "dog")]
    assert isinstance(train[0], Labelled)
    assert np.asarray(train[0].image()).shape == (30, 40, 3)
    shutil.copytree(tmp_path / "train", tmp_path / "moved")
    assert folder_set("animals", tmp_path / "moved", test=tmp_path / "test") == pairs


def test_refused_folders(tmp_path: Path) -> None:
    put(tmp_path / "train/dog/x.jpg", encoded(1))
    put(tmp_path / "same/dog/other.jpg", encoded(1))
    put(tmp_path / "strange/bird/x.jpg", encoded(2))
    put(tmp_path / "mixed/dog/notes.txt", "")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match=r"train and test share 1 images, e\.g\. .*x\.jpg and .*other\.jpg; put each image into one split"):
        folder_set("own", tmp_path / "train", test=tmp_path / "same")
    with pytest.raises(InputError, match=r"has the class 'bird', which .*train has not"):
        folder_set("own", tmp_path / "train", test=tmp_path / "strange")
    with pytest.raises(InputError, match=r"dog/notes\.txt is no image by its name; take it out"):
        folder_set("own", tmp_path / "mixed")
    with pytest.raises(InputError, match="holds no images"):
        folder_set("own", tmp_path / "bare")
    with pytest.raises(InputError, match="there is no folder"):
        folder_set("own", tmp_path / "nowhere")
    put(tmp_path / "train/dog/x.jpg", b"\xff\xd8 no more")
    with pytest.raises(InputError, match=r"no image \('dog/x\.jpg'\); mend or remove it"):
        folder_set("own", tmp_path / "train").records(Split.TRAIN)[0].image()
