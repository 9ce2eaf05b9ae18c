"""What is missing or unusable in published data: counted, named, refused beyond what is allowed, and never half-written."""

import fcntl
import json
import os
from io import BytesIO
from pathlib import Path

import published_data
import pytest
from PIL import Image
from published_data import coco_name, encoded, put

from foundation.errors import ConfigError, InputError, ResourceError
from tasks.arrow import report
from tasks.arrow.convert import convert
from tasks.arrow.drafts import Options
from tasks.arrow.sets import arrow_set
from tasks.task import Split

TRAIN = "coco_caption_karpathy_train"


def noisy(size: tuple[int, int] = (64, 64)) -> bytes:
    """A JPEG with much to decode, so that a part of it has a whole header."""
    buffer = BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def moving() -> bytes:
    buffer = BytesIO()
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def refused(name: str, root: Path, out: Path, options: Options | None = None) -> str:
    """What a conversion is refused with; nothing is left of it."""
    with pytest.raises(InputError) as caught:
        convert(name, root, out, options)
    assert not out.exists()
    return str(caught.value)


def with_entry(root: Path, change: dict) -> Path:
    """The COCO split file with its first entry changed."""
    path = root / "karpathy/dataset_coco.json"
    held = json.loads(path.read_text())
    held["images"][0] |= change
    put(path, held)
    return path


def test_missing_images_and_captions_are_counted_and_named_before_anything_is_written(tmp_path: Path) -> None:
    root = published_data.coco(tmp_path / "root", [("train", number) for number in range(8)] + [("val", 20), ("test", 21), ("restval", 22)])
    for number in range(2, 7):
        (root / "train2014" / coco_name("train", number)).unlink()
    with_entry(root, {"sentences": [{"raw": "kept"}, {"raw": " "}, {"tokens": []}]})
    assert refused("coco", root, tmp_path / "out") == (
        f"coco: 7 missing or unusable in 11 rows: 2 with an empty caption ({TRAIN}: '{coco_name('train', 0)}', caption 1; "
        f"{TRAIN}: '{coco_name('train', 0)}', caption 2); 5 with an image missing "
        f"({TRAIN}: 'train2014/{coco_name('train', 2)}'; {TRAIN}: 'train2014/{coco_name('train', 3)}'; "
        f"{TRAIN}: 'train2014/{coco_name('train', 4)}', ...); images are looked for in {root}; "
        "mend them, or give --max-missing 7 to go on without them"
    )
    assert "--max-missing 7 (it is 6) to" in refused("coco", root, tmp_path / "out", Options(max_missing=6))
    converted = convert("coco", root, tmp_path / "out", Options(max_missing=7))
    assert [(file.rows, file.missing) for file in converted.files] == [(3, 7), (1, 0), (1, 0), (1, 0)]
    told = json.loads((tmp_path / "out/coco.report.json").read_text())["files"][TRAIN]["missing"]
    assert told["with an image missing"] == {"count": 5, "named": [f"'train2014/{coco_name('train', number)}'" for number in range(2, 7)]}
    records = arrow_set("coco", tmp_path / "out").records(Split.TRAIN)
    assert [record.captions[0] for record in records] == ["kept", "Zebra 1 on grass.", "Zebra 7 on grass.", "Zebra 22 on grass."]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<html>404</html>", "1 with a file that is no image ({file}: '{image}')"),
        (b"", "1 with a file that is no image ({file}: '{image}')"),
        (moving(), "1 with an image of several frames ({file}: '{image}' (2 frames))"),
        (encoded(1)[:60], "1 with a"),
    ],
    ids=["html", "empty", "animation", "header cut short"],
)
def test_unusable_images_are_told_by_their_header(content: bytes, told: str, tmp_path: Path) -> None:
    root = published_data.coco(tmp_path / "root")
    image = f"train2014/{coco_name('train', 9)}"
    put(root / image, content)
    message = refused("coco", root, tmp_path / "out")
    assert told.format(file=TRAIN, image=image) in message
    assert image in message
    assert [file.rows for file in convert("coco", root, tmp_path / "out", Options(max_missing=1)).files] == [1, 1, 1, 1]


def test_pixels_cut_short_are_found_by_decoding(tmp_path: Path) -> None:
    root = published_data.coco(tmp_path / "root")
    put(root / "train2014" / coco_name("train", 9), noisy()[:2000])
    assert "1 with an image truncated or damaged" in refused("coco", root, tmp_path / "whole", Options(decode=True))
    convert("coco", root, tmp_path / "out")  # the header is sound
    record = arrow_set("coco", tmp_path / "out").records(Split.TRAIN)[0]
    with pytest.raises(InputError, match=rf"{TRAIN}\.arrow, row 0, column image: an image truncated or damaged .*--decode, which finds"):
        record.image()


def test_an_image_name_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    root = published_data.coco(tmp_path / "root")
    put(tmp_path / "secret.jpg", encoded(1))
    with_entry(root, {"filepath": "..", "filename": "secret.jpg"})
    assert f"1 with an image outside the image folder ({TRAIN}: '../secret.jpg')" in refused("coco", root, tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_an_image_that_may_not_be_read(tmp_path: Path) -> None:
    root = published_data.coco(tmp_path / "root")
    (root / "train2014" / coco_name("train", 9)).chmod(0)
    assert "1 with an image file that cannot be opened" in refused("coco", root, tmp_path / "out")


def test_an_image_without_captions_is_missing_them(tmp_path: Path) -> None:
    root = published_data.coco(tmp_path / "root")
    with_entry(root, {"sentences": []})
    assert f"1 without any caption ({TRAIN}: '{coco_name('train', 9)}')" in refused("coco", root, tmp_path / "out")


def test_nothing_left_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    root = published_data.flickr30k(tmp_path / "root")
    put(root / "flickr30k-images/1001.jpg", b"no image")
    assert "no row of f30k_caption_karpathy_val is left" in refused("flickr30k", root, tmp_path / "out", Options(max_missing=5))


def test_vqav2_names_questions_without_annotation_or_words(tmp_path: Path) -> None:
    root = published_data.vqav2(tmp_path / "root")
    annotations, questions = root / "v2_mscoco_train2014_annotations.json", root / "v2_OpenEnded_mscoco_train2014_questions.json"
    held = json.loads(annotations.read_text())
    for answer in held["annotations"][5]["answers"]:
        answer["answer"] = " "
    put(annotations, held | {"annotations": held["annotations"][1:]})
    asked = json.loads(questions.read_text())
    asked["questions"][3]["question"] = ""
    put(questions, asked)
    message = refused("vqav2", root, tmp_path / "out", Options(rest_images=2, least_answers=3))
    assert "2 without its annotation (vqav2_train: question 1000 about image 1; vqav2_train: question 3001 about image 3)" in message
    assert "1 with an empty question (vqav2_train: question 2001 about image 2)" in message


def test_nlvr2_names_the_image_of_a_pair(tmp_path: Path) -> None:
    root = published_data.nlvr2(tmp_path / "root")
    (root / "images/train/1/train-11-3-img1.png").unlink()
    assert "1 with an image missing (nlvr2_train: 'images/train/1/train-11-3-img1.png')" in refused("nlvr2", root, tmp_path / "out")


def test_visual_genome_names_regions_without_words(tmp_path: Path) -> None:
    root = published_data.visual_genome(tmp_path / "root")
    held = json.loads((root / "annotations/region_descriptions.json").read_text())
    held[0]["regions"][1]["phrase"] = ""
    put(root / "annotations/region_descriptions.json", held)
    assert "1 with an empty caption (vg: region 1 of image 1)" in refused("visual_genome", root, tmp_path / "out")
    convert("visual_genome", root, tmp_path / "out", Options(max_missing=1))
    assert arrow_set("visual_genome", tmp_path / "out").records(Split.TRAIN)[0].captions == ("part 0 of 1",)


def test_dead_links_of_web_lists_are_missing_images(tmp_path: Path) -> None:
    root = published_data.conceptual_captions(tmp_path / "root")
    (root / "images_train/0000/0000001.jpg").unlink()
    message = refused("conceptual_captions", root, tmp_path / "out")
    assert "1 with an image missing (conceptual_caption_train_: 'images_train/0000/0000001')" in message
    converted = convert("conceptual_captions", root, tmp_path / "out", Options(max_missing=1))
    assert [(file.name, file.rows, file.missing) for file in converted.files] == [
        ("conceptual_caption_train_0", 2, 1),
        ("conceptual_caption_val_0", 3, 0),
    ]


def test_only_the_first_are_kept_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "KEPT", 2)
    root = published_data.sbu(tmp_path / "root", 6)
    for number in range(5):
        (root / f"images_train/0000/{number:07d}").unlink()
    lacks = convert("sbu", root, tmp_path / "out", Options(max_missing=5)).lacks
    assert lacks.total == 5
    assert [len(names) for names in lacks.named.values()] == [2]


BROKEN = {
    "no split file": ("coco", "karpathy/dataset_coco.json", None, "has no karpathy/dataset_coco.json (nor dataset_coco.json); put the"),
    "no list": ("coco", "karpathy/dataset_coco.json", {"dataset": "coco"}, "has no list 'images'; it is not the published file"),
    "no file name": ("coco", "karpathy/dataset_coco.json", {"images": [{"split": "train"}]}, "entry 0 of images has no 'filename'"),
    "no sentences": (
        "coco",
        "karpathy/dataset_coco.json",
        {"images": [{"split": "train", "filename": "a.jpg"}]},
        "entry 0 of images (a.jpg) has no list 'sentences'",
    ),
    "another split": (
        "coco",
        "karpathy/dataset_coco.json",
        {"images": [{"split": "val2", "filename": "a.jpg", "sentences": []}]},
        "entry 0 of images is of split 'val2'; Karpathy's are train, restval, val, test",
    ),
    "fewer questions": (
        "vqav2",
        "v2_OpenEnded_mscoco_train2014_questions.json",
        {"questions": [{"image_id": 1, "question": "What?", "question_id": 1000}]},
        "has annotations of 5 questions that v2_OpenEnded_mscoco_train2014_questions.json does not ask, e.g. 1001; fetch both files",
    ),
    "cut short": ("coco", "karpathy/dataset_coco.json", '{"images": [{"split"', "the JSON cannot be read: "),
    "no such split": (
        "flickr30k",
        "karpathy/dataset_flickr30k.json",
        {"images": []},
        "f30k_caption_karpathy_train: the annotations give it no",
    ),
    "other answers": (
        "vqav2",
        "v2_mscoco_train2014_annotations.json",
        {"annotations": [{"image_id": 1}]},
        "an entry has no 'multiple_choice_answer' as VQA v2 has it: {'image_id': 1}; fetch the published file",
    ),
    "no questions": ("vqav2", "v2_OpenEnded_mscoco_test2015_questions.json", None, "has no v2_OpenEnded_mscoco_test2015_questions.json"),
    "another label": (
        "nlvr2",
        "nlvr2/data/train.json",
        '{"identifier": "train-1-0-0", "sentence": "s", "label": "maybe"}\n',
        "train.json, line 1: the label is 'maybe'; it is True or False in NLVR2",
    ),
    "no line of JSON": ("nlvr2", "nlvr2/data/dev.json", "\n{]\n", "dev.json, line 2: is no JSON: "),
    "no regions": (
        "visual_genome",
        "annotations/region_descriptions.json",
        [{"id": 1}],
        "entry 0 has no number 'id' with a list 'regions'",
    ),
    "no box": (
        "visual_genome",
        "annotations/region_descriptions.json",
        [{"id": 1, "regions": [{"phrase": "p"}]}],
        "region 0 of image 1 has no whole numbers width, height, x, y",
    ),
    "no pairs": ("sbu", "annot.json", [["a"]], "annot.json: entry 0 is ['a']; write a list of [image, caption]"),
    "no list of SBU": ("sbu", "annot.json", None, "has neither annot.json nor SBU_captioned_photo_dataset_captions.txt with"),
    "no tab": ("conceptual_captions", "Train_GCC-training.tsv", "a caption\n", "line 1: has no tab between caption and address"),
    "not UTF-8": ("conceptual_captions", "Train_GCC-training.tsv", b"caf\xe9\thttp\n", "Train_GCC-training.tsv: is not UTF-8: "),
}


@pytest.mark.parametrize("case", BROKEN)
def test_annotations_that_are_not_as_published_are_refused(case: str, tmp_path: Path) -> None:
    name, file, content, told = BROKEN[case]
    root = published_data.MAKERS[name](tmp_path / "root")
    if content is None:
        (root / file).unlink()
    else:
        put(root / file, content)
    assert told in refused(name, root, tmp_path / "out", Options(rest_images=2, least_answers=3) if name == "vqav2" else None)


def test_lists_of_sbu_that_do_not_match(tmp_path: Path) -> None:
    put(tmp_path / "root/SBU_captioned_photo_dataset_captions.txt", "a\nb\n")
    put(tmp_path / "root/SBU_captioned_photo_dataset_urls.txt", "http://example.org/a\n")
    assert "urls.txt: ends before the other list does; captions and addresses belong" in refused("sbu", tmp_path / "root", tmp_path / "out")


def test_more_rest_images_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--rest-images is 1000, but val has 6 images; leave some to learn from"):
        convert("vqav2", published_data.vqav2(tmp_path / "root"), tmp_path / "out")


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"coco: there is no directory .*nowhere; check --root"):
        convert("coco", tmp_path / "nowhere", tmp_path / "out")


def test_two_runs_do_not_write_the_same_files(tmp_path: Path) -> None:
    root = published_data.coco(tmp_path / "root")
    (tmp_path / "out/.coco.writing").mkdir(parents=True)
    held = os.open(tmp_path / "out/.coco.writing", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="another run is writing coco there; wait for it, or choose another --out"):
            convert("coco", root, tmp_path / "out")
    finally:
        os.close(held)
    put(tmp_path / "out/.coco.writing/left.arrow", b"of a run that was killed")
    convert("coco", root, tmp_path / "out")
    assert not (tmp_path / "out/.coco.writing").exists()
