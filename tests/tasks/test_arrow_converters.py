"""Each published format, small, through its converter and back through the reader: same names, same order, same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import published_data
import pyarrow as pa
import pytest
from published_data import MAKERS, coco_name, encoded, put

from foundation.errors import ConfigError, InputError
from tasks.arrow import convert as conversion
from tasks.arrow import writing
from tasks.arrow.apart import Apart
from tasks.arrow.convert import convert
from tasks.arrow.drafts import AnswersFrom, Options
from tasks.arrow.names import DATA_SETS, is_sharded
from tasks.arrow.pictures import AHEAD
from tasks.arrow.report import Converted
from tasks.arrow.sets import ArrowSet, arrow_set
from tasks.pairs.records import Captioned, Compared, PairSet, Questioned
from tasks.task import Split

OPTIONS = {"vqav2": Options(rest_images=2, least_answers=3)}


def made(name: str, folder: Path, options: Options | None = None) -> tuple[Converted, ArrowSet]:
    """A small data set, converted and opened."""
    converted = convert(name, MAKERS[name](folder / "root"), folder / "out", options or OPTIONS.get(name))
    return converted, arrow_set(name, folder / "out", apart=Apart.CONTENT)


def rows_of(path: Path) -> list[dict]:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all().to_pylist()


@pytest.mark.parametrize("name", DATA_SETS)
def test_files_and_columns_are_the_documented_ones(name: str, tmp_path: Path) -> None:
    converted, known = made(name, tmp_path)[0], DATA_SETS[name]
    assert [file.name for file in converted.files] == [f"{file}0" if is_sharded(file) else file for file in known.files]
    assert converted.lacks.total == 0
    for file in converted.files:
        rows = rows_of(tmp_path / f"out/{file.name}.arrow")
        assert len(rows) == file.rows > 0
        assert tuple(rows[0]) == known.layout.names
        assert all(row[column][:2] in {b"\xff\xd8", b"\x89P"} for row in rows for column in known.layout.images)
    hidden = sorted(path.name for path in (tmp_path / "out").iterdir() if path.name.startswith("."))
    assert hidden == [".digests.json"]


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_set_is_a_pair_set_whose_keys_are_unique_and_whose_images_decode(name: str, tmp_path: Path) -> None:
    pairs = made(name, tmp_path)[1]
    assert isinstance(pairs, PairSet)
    assert pairs.kind is DATA_SETS[name].kind
    for split in (split for split in Split if pairs.files[split]):
        records = pairs.records(split)
        assert len({record.key for record in records}) == len(records) > 0
        assert [record.key for record in pairs.records(split, 1)] == [records[0].key]
        for record in records:
            for image in record.images if isinstance(record, Compared) else (record.image,):
                assert image().mode == "RGB"
                assert image().size == (40, 30)


def test_coco_keeps_images_bytes_and_the_order_of_captions(tmp_path: Path) -> None:
    pairs = made("coco", tmp_path)[1]
    rows = rows_of(tmp_path / "out/coco_caption_karpathy_train.arrow")
    assert [row["image"] for row in rows] == [encoded(9), encoded(25)]
    assert rows[0]["image_id"] == coco_name("train", 9)
    assert rows[0]["caption"] == ["Zebra 9 on grass.", "an animal, 9", "bare 9"]  # in order, the third stood there before
    assert rows[0]["split"] == "train"
    train = pairs.records(Split.TRAIN)
    assert isinstance(train[0], Captioned)
    assert [record.key.rpartition("/")[2] for record in train] == [coco_name("train", 9), coco_name("train", 25), coco_name("restval", 30)]
    assert len(arrow_set("coco", tmp_path / "out", variant="train_only").records(Split.TRAIN)) == 2


def test_flickr30k_validates_on_val_and_not_on_test(tmp_path: Path) -> None:
    pairs = made("flickr30k", tmp_path)[1]
    (validation,), (test,) = pairs.records(Split.VALIDATION), pairs.records(Split.TEST)
    assert (validation.key.rpartition("/")[2], test.key.rpartition("/")[2]) == ("1001.jpg", "1002.jpg")


def test_vqav2_splits_val_by_image_and_scores_answers(tmp_path: Path) -> None:
    converted, pairs = made("vqav2", tmp_path)
    assert pairs.choices() == ("2", "yes")
    train, validation, test = (pairs.records(split) for split in Split)
    assert (len(train), len(validation), len(test)) == (2 * 3 + 2 * 4, 2 * 2, 2 * 2)
    first, second = train[0], train[1]
    assert isinstance(first, Questioned)
    assert isinstance(second, Questioned)
    assert (first.question, dict(first.answers), first.number) == ("What is in 1, 0?", {"yes": 1.0}, 1000)
    assert dict(second.answers) == {"2": 1.0}  # "two" and "2" are one answer
    assert dict(validation[0].answers) == {"yes": 1.0, "no": 0.6, "dog": 0.3}  # what annotators gave, chosen or not
    assert not test[0].answers
    images = {
        file: {row["image_id"] for row in rows_of(tmp_path / f"out/vqav2_{file}.arrow")} for file in ("val", "trainable_val", "rest_val")
    }
    assert images["rest_val"] | images["trainable_val"] == images["val"]
    assert not images["rest_val"] & images["trainable_val"]
    assert converted.extra == ("vqav2_answers.json",)
    assert len(arrow_set("vqav2", tmp_path / "out", variant="test-dev").records(Split.TEST)) == 1


def test_vqav2_draws_rest_val_by_its_seed_alone(tmp_path: Path) -> None:
    root = published_data.vqav2(tmp_path / "root", 40)
    drawn = []
    for place, seed in enumerate((0, 0, 1)):
        convert("vqav2", root, tmp_path / str(place), Options(rest_images=10, seed=seed, only=("vqav2_rest_val",)))
        drawn.append({row["image_id"] for row in rows_of(tmp_path / f"{place}/vqav2_rest_val.arrow")})
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == len(drawn[2]) == 10


def test_vqav2_counts_its_vocabulary_over_what_is_learned_from(tmp_path: Path) -> None:
    root = published_data.vqav2(tmp_path / "root")  # "yes" is the majority's 9 times in all, 7 times without the 2 images of rest_val
    with pytest.raises(InputError, match="no answer is the majority's 9 times; lower --least-answers"):
        convert("vqav2", root, tmp_path / "out", Options(rest_images=2))
    convert("vqav2", root, tmp_path / "out", Options(rest_images=2, answers_from=AnswersFrom.ALL))
    assert arrow_set("vqav2", tmp_path / "out").choices() == ("2", "yes")


def test_vqav2_leaves_unanswerable_questions_out_of_learning_and_in_validation(tmp_path: Path) -> None:
    root = published_data.vqav2(tmp_path / "root")
    for year in ("train2014", "val2014"):
        path = root / f"v2_mscoco_{year}_annotations.json"
        held = json.loads(path.read_text())
        for annotation in held["annotations"]:
            if annotation["question_id"] % 1000 == 1:
                annotation["answers"] = [{"answer": f"rare {annotation['question_id']}"}] * 10
                annotation["multiple_choice_answer"] = "rare"
        put(path, held)
    converted = convert("vqav2", root, tmp_path / "out", Options(rest_images=2, least_answers=3, answers_from=AnswersFrom.TRAINABLE))
    pairs = arrow_set("vqav2", tmp_path / "out")
    assert pairs.choices() == ("rare", "yes")
    assert len(pairs.records(Split.TRAIN)) == 3 + 4
    assert [dict(record.answers) for record in pairs.records(Split.VALIDATION)][1] == {
        f"rare {pairs.records(Split.VALIDATION)[1].number}": 1.0
    }
    assert converted.notes == (
        "vqav2_train: left out 3 questions, none of whose answers is in the vocabulary",
        "vqav2_trainable_val: left out 4 questions, none of whose answers is in the vocabulary",
    )


def test_nlvr2_pairs_sentences_with_both_images(tmp_path: Path) -> None:
    pairs = made("nlvr2", tmp_path)[1]
    train = pairs.records(Split.TRAIN)
    assert [(record.sentence, record.label) for record in train] == [
        ("Left of train-10-0 has 0 dogs.", True),
        ("Left of train-10-0 has 1 dogs.", False),
        ("Left of train-11-3 has 0 dogs.", True),
    ]
    left, right = (image() for image in train[2].images)
    assert left.tobytes() != right.tobytes()
    assert [len(arrow_set("nlvr2", tmp_path / "out", variant=each).records(Split.TEST)) for each in ("all", "balanced")] == [2, 1]


def test_visual_genome_keeps_every_region_and_finds_both_folders(tmp_path: Path) -> None:
    pairs = made("visual_genome", tmp_path)[1]
    row = rows_of(tmp_path / "out/vg.arrow")[0]
    assert row["caption"] == ["part 0 of 1", "part 1 of 1", "part 0 of 1"]
    assert (row["x"], row["y"], row["width"], row["height"], row["image_id"]) == ([0, 1, 7], [-1] * 3, [10, 11, 10], [5] * 3, "1")
    assert pairs.records(Split.TRAIN)[0].captions == ("part 0 of 1", "part 1 of 1")
    (tmp_path / "root/annotations/image_data.json").unlink()
    convert("visual_genome", tmp_path / "root", tmp_path / "again")
    assert (tmp_path / "again/vg.arrow").read_bytes() == (tmp_path / "out/vg.arrow").read_bytes()


def test_visual_genome_leaves_out_what_coco_asks(tmp_path: Path) -> None:
    root = published_data.visual_genome(tmp_path / "root")
    split = published_data.coco(tmp_path / "coco") / "karpathy/dataset_coco.json"
    converted = convert("visual_genome", root, tmp_path / "out", Options(without_coco=split))
    assert [row["image_id"] for row in rows_of(tmp_path / "out/vg.arrow")] == ["1", "10"]
    assert converted.notes == ("vg: left out 1 images that COCO's Karpathy split asks about in val or test",)


def test_sbu_from_the_published_lists_equals_the_list_of_paths(tmp_path: Path) -> None:
    root = published_data.sbu(tmp_path / "root")
    convert("sbu", root, tmp_path / "listed")
    (root / "annot.json").unlink()
    put(root / "SBU_captioned_photo_dataset_captions.txt", "".join(f"My photo {number}\n" for number in range(5)))
    put(root / "SBU_captioned_photo_dataset_urls.txt", "".join(f"http://example.org/{number}.jpg\n" for number in range(5)))
    convert("sbu", root, tmp_path / "published")
    assert (tmp_path / "listed/sbu_0.arrow").read_bytes() == (tmp_path / "published/sbu_0.arrow").read_bytes()


def test_shards_hold_a_fixed_number_of_rows_and_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "SHARD_ROWS", 2)
    convert("sbu", published_data.sbu(tmp_path / "root", 5), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.arrow")) == ["sbu_0.arrow", "sbu_1.arrow", "sbu_2.arrow"]
    told = [record.captions for record in arrow_set("sbu", tmp_path / "out").records(Split.TRAIN)]
    assert told == [(f"My photo {number}",) for number in range(5)]
    put(tmp_path / "root/annot.json", [["images_train/0000/0000000", "One alone"]])
    convert("sbu", tmp_path / "root", tmp_path / "out", Options(replace=True))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.arrow")) == ["sbu_0.arrow"]
    assert list(json.loads((tmp_path / "out/sbu.report.json").read_text())["files"]) == ["sbu_0"]


def test_memory_is_bounded_by_a_batch_and_the_images_on_their_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BATCH_ROWS", 16)
    held, drawn, added = [], 0, 0
    plain_add, plain_fetch = writing.ArrowWriter.add, conversion.fetch_all

    def add(self: writing.ArrowWriter, row: dict) -> None:
        nonlocal added
        plain_add(self, row)
        added += 1
        held.append((self.most_held, drawn - added))

    def fetch_all(root: str, rows: object, whole: bool) -> object:
        def counted() -> object:
            nonlocal drawn
            for row in rows:
                drawn += 1
                yield row

        return plain_fetch(root, counted(), whole)

    monkeypatch.setattr(writing.ArrowWriter, "add", add)
    monkeypatch.setattr(conversion, "fetch_all", fetch_all)
    convert("sbu", published_data.sbu(tmp_path / "root", 200), tmp_path / "out")
    assert len(held) == 200
    assert max(rows for rows, _ in held) == 16
    assert max(ahead for _, ahead in held) <= AHEAD + 1
    assert pa.ipc.open_file(str(tmp_path / "out/sbu_0.arrow")).num_record_batches == 13


def test_a_batch_also_ends_by_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BATCH_BYTES", 3 * len(encoded(0)) - 50)
    convert("sbu", published_data.sbu(tmp_path / "root", 9), tmp_path / "out")
    assert pa.ipc.open_file(str(tmp_path / "out/sbu_0.arrow")).num_record_batches == 3


def test_bytes_are_the_same_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tasks.arrow.convert import convert; from tasks.arrow.drafts import Options\n"
        "for name in ('coco', 'vqav2', 'nlvr2'):\n"
        "    options = Options(rest_images=2, least_answers=3) if name == 'vqav2' else Options()\n"
        "    convert(name, Path(sys.argv[1]) / name, Path(sys.argv[2]), options)\n"
    )
    for name in ("coco", "vqav2", "nlvr2"):
        MAKERS[name](tmp_path / "root" / name)
    written = []
    for seed in ("1", "2"):
        out = tmp_path / f"out{seed}"
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "root"), str(out)], check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        written.append({path.name: path.read_bytes() for path in out.iterdir() if path.name != ".digests.json"})
    assert written[0] == written[1]
    assert len(written[0]) == 4 + 6 + 7 + 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(only=("coco_caption_karpathy_vall",)), "--only: unknown file of coco 'coco_caption_karpathy_vall'; did you mean"),
        (Options(seed=3), "--seed belongs to vqav2; coco has no such choice, leave it out"),
        (Options(max_missing=-1), "--max-missing is -1; give 0 or more"),
    ],
)
def test_options_that_cannot_be_honoured(options: Options, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        convert("coco", published_data.coco(tmp_path / "root"), tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_an_unknown_data_set_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown data set 'flickr'; did you mean 'flickr30k'"):
        convert("flickr", tmp_path, tmp_path / "out")


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    root = published_data.coco(tmp_path / "root")
    convert("coco", root, tmp_path / "out", Options(only=("coco_caption_karpathy_val",)))
    with pytest.raises(ConfigError, match=r"holds coco_caption_karpathy_val\.arrow already; choose another --out, or --replace"):
        convert("coco", root, tmp_path / "out")
    convert("coco", root, tmp_path / "out", Options(only=("coco_caption_karpathy_test",)))
    assert list(json.loads((tmp_path / "out/coco.report.json").read_text())["files"]) == [
        "coco_caption_karpathy_test",
        "coco_caption_karpathy_val",
    ]


def test_importing_is_light() -> None:
    code = "import sys, tasks.arrow, tasks.arrow.sets, tasks.arrow.convert; print({'pyarrow', 'PIL', 'numpy', 'torch'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "set()"
