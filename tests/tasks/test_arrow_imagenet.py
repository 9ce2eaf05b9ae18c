"""ImageNet as published becomes a set of labelled images; nothing is chosen by its published validation images."""

from collections import Counter
from pathlib import Path

import numpy as np
import published_data
import pytest
from published_data import IMAGENET, encoded, put
from scipy.io import savemat

from foundation.errors import InputError
from tasks.arrow import imagenet
from tasks.arrow.apart import Apart
from tasks.arrow.convert import convert
from tasks.arrow.drafts import Options
from tasks.arrow.imagenet import divided, published
from tasks.arrow.reading import open_rows
from tasks.arrow.sets import arrow_set
from tasks.pairs.records import Kind, Labelled
from tasks.task import Split

KINDS = list(IMAGENET)
TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"


def columns(out: Path, file: str) -> list[tuple[str, str, str]]:
    rows = open_rows(str(out / f"{file}.arrow"))
    return list(zip(rows.plain("image_id"), rows.plain("label"), rows.plain("split"), strict=True))


def told_by_folders(root: Path) -> Path:
    """As many keep val: a folder for each class."""
    published_data.imagenet(root)
    for place, kind in enumerate(KINDS):
        name = f"ILSVRC2012_val_{place + 1:08d}.JPEG"
        (root / "val" / kind).mkdir()
        (root / "val" / name).rename(root / "val" / kind / name)
    (root / "LOC_val_solution.csv").unlink()
    return root


def told_by_the_kit(root: Path, numbers: tuple[int, ...] = (490, 7, 3, 1000)) -> Path:
    """The development kit: its numbers are not the order of the classes."""
    published_data.imagenet(root)
    (root / "LOC_val_solution.csv").unlink()
    put(root / TRUTH, "".join(f"{number}\n" for number in numbers))
    table = np.array([(number, kind) for number, kind in zip(numbers, KINDS, strict=True)], dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O")])
    savemat(root / "ILSVRC2012_devkit_t12/data/meta.mat", {"synsets": table})
    return root


def below_kaggle(root: Path) -> Path:
    published_data.imagenet(root)
    deep = root / "ILSVRC/Data/CLS-LOC"
    deep.mkdir(parents=True)
    for part in ("train", "val"):
        (root / part).rename(deep / part)
    return root


LAYOUTS = {"solution": published_data.imagenet, "folders": told_by_folders, "kit": told_by_the_kit, "kaggle": below_kaggle}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_files(layout: str, tmp_path: Path) -> None:
    convert("imagenet", published_data.imagenet(tmp_path / "usual"), tmp_path / "a")
    converted = convert("imagenet", LAYOUTS[layout](tmp_path / "root"), tmp_path / "b")
    assert [(file.name, file.rows) for file in converted.files] == [("imagenet_train_0", 8), ("imagenet_held_back", 4), ("imagenet_val", 4)]
    for file in converted.files:
        assert (tmp_path / "a" / f"{file.name}.arrow").read_bytes() == (tmp_path / "b" / f"{file.name}.arrow").read_bytes()
    expected = [(f"ILSVRC2012_val_{place + 1:08d}", kind, "val") for place, kind in enumerate(KINDS)]
    assert columns(tmp_path / "b", "imagenet_val") == expected
    assert open_rows(str(tmp_path / "b/imagenet_val.arrow")).image(2, "image") == encoded(9002)


def test_the_set_holds_back_training_images_and_tests_on_the_published_ones(tmp_path: Path) -> None:
    convert("imagenet", published_data.imagenet(tmp_path / "root"), tmp_path / "out")
    pairs = arrow_set("imagenet", tmp_path / "out", apart=Apart.CONTENT)
    assert pairs.kind is Kind.LABELS
    assert pairs.choices() == tuple(sorted(KINDS))
    found = {split: pairs.records(split) for split in Split}
    assert {split: len(records) for split, records in found.items()} == {Split.TRAIN: 8, Split.VALIDATION: 4, Split.TEST: 4}
    assert all(isinstance(record, Labelled) and record.image().mode == "RGB" for records in found.values() for record in records)
    assert Counter(record.label for record in found[Split.VALIDATION]) == dict.fromkeys(KINDS, 1)
    train = columns(tmp_path / "out", "imagenet_train_0")
    assert all(image.rpartition("_")[0] == label and split == "train" for image, label, split in train)
    assert '"n02012849": "crane"' in (tmp_path / "out/imagenet_classes.json").read_text()


def test_a_hundredth_of_each_class_is_held_back_wherever_the_images_stand(tmp_path: Path) -> None:
    for kind, count in (("n00000001", 250), ("n00000002", 30)):
        for number in range(count):
            put(tmp_path / "train" / kind / f"{kind}_{number}.JPEG", b"")
    learned, held = divided(tmp_path)
    assert Counter(name.split("/")[1] for name in held) == {"n00000001": 2, "n00000002": 1}
    assert len(learned) + len(held) == len({*learned, *held}) == 280
    assert divided(tmp_path) == (learned, held)
    assert learned != sorted(learned)
    assert {name.split("/")[1] for name in learned[:40]} == {"n00000001", "n00000002"}  # the first so many are of all classes
    put(tmp_path / "train/n00000002/n00000002_30.JPEG", b"")
    again = divided(tmp_path)[1]
    assert len({*again} & {*held}) >= 2  # one more image takes at most one place


def test_what_lies_on_the_drive_in_another_order_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = published_data.imagenet(tmp_path)
    before, listed = divided(root), imagenet._listed
    monkeypatch.setattr(imagenet, "_listed", lambda folder, directories: sorted(listed(folder, directories), reverse=True))
    assert divided(root) == before


def test_missing_and_unlabelled_images_are_counted(tmp_path: Path) -> None:
    root = published_data.imagenet(tmp_path / "root")
    (root / "val/ILSVRC2012_val_00000002.JPEG").unlink()
    put(root / "val/ILSVRC2012_val_00000009.JPEG", encoded(5))
    with pytest.raises(InputError) as told:
        convert("imagenet", root, tmp_path / "out")
    assert "1 with an image missing (imagenet_val: 'val/ILSVRC2012_val_00000002.JPEG')" in str(told.value)
    assert "1 without its annotation (imagenet_val: val/ILSVRC2012_val_00000009.JPEG)" in str(told.value)
    assert not (tmp_path / "out").exists()
    assert convert("imagenet", root, tmp_path / "out", Options(max_missing=2)).files[-1].rows == 3


def test_the_published_images_alone_are_converted(tmp_path: Path) -> None:
    root = told_by_folders(tmp_path / "root")
    for path in sorted((root / "train").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "train").rmdir()
    assert [file.rows for file in convert("imagenet", root, tmp_path / "out", Options(only=("imagenet_val",))).files] == [4]


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    root = published_data.imagenet(tmp_path / "root")
    put(root / "train/n02012849/n02012849_1.JPEG", b"no image")
    with pytest.raises(InputError, match=r"train/n02012849/n02012849_1\.JPEG"):
        convert("imagenet", root, tmp_path / "out")


WRONG = {
    "no train": (lambda root: (root / "train").rename(root / "Train"), "has neither train/ nor ILSVRC/Data/CLS-LOC/train/"),
    "no val": (lambda root: (root / "val").rename(root / "Val"), "ILSVRC2012_img_val.tar"),
    "no labels": (lambda root: (root / "LOC_val_solution.csv").unlink(), "nothing tells the classes"),
    "archives": (lambda root: put(root / "train/n01440764.tar", "x"), "unpack each archive"),
    "a strange folder": (lambda root: (root / "train/fish").mkdir(), "'fish' is named by no class"),
    "a strange file": (lambda root: put(root / "train/n01440764/notes.txt", "x"), "notes.txt is no image"),
    "an empty class": (lambda root: (root / "train/n09999999").mkdir(), "holds 0 images"),
    "a class to learn is missing": (
        lambda root: put(root / "LOC_val_solution.csv", "ImageId,PredictionString\nILSVRC2012_val_00000001,n00000001 1 2 3 4\n"),
        "n00000001, which has no folder in train",
    ),
    "a bad label": (
        lambda root: put(root / "LOC_val_solution.csv", "ImageId,PredictionString\nx,fish\n"),
        "line 2: is no image with its class",
    ),
    "a bad name": (lambda root: put(root / "LOC_synset_mapping.txt", "n01440764\n"), "line 1: 'n01440764' is no class with its name"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_as_published_is_named(case: str, tmp_path: Path) -> None:
    root = published_data.imagenet(tmp_path / "root")
    change, told = WRONG[case]
    change(root)
    with pytest.raises(InputError) as caught:
        convert("imagenet", root, tmp_path / "out")
    assert told in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (TRUTH, "490\n8\n", "line 2: '8' is no class"),
        (TRUTH, "490\nfish\n", "line 2: 'fish' is no class"),
        ("ILSVRC2012_devkit_t12/data/meta.mat", b"MATLAB, not really", "is not the development kit's table"),
        ("ILSVRC2012_devkit_t12/data/meta.mat", b"", "is not the development kit's table"),
        ("ILSVRC2012_devkit_t12/data/meta.mat", b"MATLAB 5.0 MAT-file" + bytes(500), "is not the development kit's table"),
    ],
)
def test_a_kit_that_is_none_is_named(name: str, content: str | bytes, told: str, tmp_path: Path) -> None:
    root = told_by_the_kit(tmp_path)
    put(root / name, content)
    with pytest.raises(InputError, match=told):
        list(published(root))
