"""A task from files as a value: known by content and never by place, lazy, and refused where its fields are wrong."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from foundation.errors import ConfigError, InputError
from tasks.files.task import file_task
from tasks.task import Split, Task


def write_records(path: Path, ids: range) -> Path:
    """Text-only LLaVA records with the given ids."""
    said = [[{"from": "human", "value": f"Q{number}?"}, {"from": "gpt", "value": f"A{number}"}] for number in ids]
    path.write_text(json.dumps([{"id": number, "conversations": each} for number, each in zip(ids, said, strict=True)]))
    return path


def write_pictures(folder: Path) -> Path:
    """Four records with an image each, and one without."""
    (folder / "images").mkdir(parents=True)
    records = json.loads(write_records(folder / "train.json", range(5)).read_text())
    for number in (0, 2, 3, 4):
        Image.new("RGB", (4, 3), (number, 0, 0)).save(folder / "images" / f"{number}.png")
        records[number]["image"] = f"images/{number}.png"
        records[number]["conversations"][0]["value"] = f"<image>\nQ{number}?"
    (folder / "train.json").write_text(json.dumps(records))
    return folder / "train.json"


def test_identity_is_content_and_never_place(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "one")
    task = file_task("t", train=path)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for image in (tmp_path / "two" / "images").iterdir():
        os.utime(image, (1, 1))
    moved = file_task("t", train="two/train.json", base=tmp_path, max_bad_records=3, cache=tmp_path / "cache")
    assert task == moved
    assert repr(task) == repr(moved)
    assert str(tmp_path) not in repr(task)
    assert {item.name for item in dataclasses.fields(task) if item.metadata.get("execution")} == {"max_bad_records", "cache"}
    first = next((tmp_path / "two" / "images").iterdir())
    first.write_bytes(first.read_bytes() + b"more")
    assert file_task("t", train=tmp_path / "two" / "train.json") != task
    assert file_task("t", train={"path": str(path), "sampling_strategy": "first:2"}) != task
    path.write_text(path.read_text() + " ")
    assert file_task("t", train=path) != task
    with pytest.raises(InputError, match=r"train\.json: has changed since task 't' was made from it"):
        task.examples(Split.TRAIN)


def test_examples_are_lazy_prefix_stable_and_bounded_by_what_there_is(tmp_path: Path) -> None:
    task = file_task("t", train=write_pictures(tmp_path / "x"))
    assert isinstance(task, Task)
    assert task.examples(Split.TRAIN, 2) == task.examples(Split.TRAIN, 4)[:2] != task.examples(Split.TRAIN, 3)
    assert len(task.examples(Split.TRAIN, 99)) == 5
    assert task.examples(Split.TRAIN)[-1].answer == "A4"
    examples = task.examples(Split.TRAIN)
    shutil.rmtree(tmp_path / "x" / "images")
    assert examples[1].answer == "A1"
    with pytest.raises(InputError, match=r"t/train/train\.json/0 was sound when it was checked and now is not"):
        examples[0]


def test_a_split_without_files_says_which_key_to_add(tmp_path: Path) -> None:
    task = file_task("t", train=write_records(tmp_path / "a.json", range(3)))
    with pytest.raises(InputError, match=r"task 't' has no files for the test split; add the key test: .*it has train"):
        task.examples(Split.TEST)


def test_what_a_step_of_one_split_rests_on(tmp_path: Path) -> None:
    train, test = write_records(tmp_path / "a.json", range(3)), write_records(tmp_path / "b.json", range(3, 6))
    task = file_task("t", train=train, test=test, scoring="contains", max_new_tokens=9)
    assert task.only(Split.TRAIN) == file_task("t", train=train)
    assert task.only(Split.TEST) == file_task("t", test=test, scoring="contains", max_new_tokens=9)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"scoring": "exact_mach"}, "unknown scoring 'exact_mach'; did you mean 'exact_match'"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; give 1 or more"),
        ({"max_bad_records": -1}, "max_bad_records is -1"),
        ({"name": ""}, "needs a name"),
        ({"train": None}, "names no files; give at least one of train"),
        ({"train": []}, "names no files"),
        ({"images": "nowhere"}, "there is no image folder .*nowhere"),
    ],
)
def test_a_wrong_field_says_what_is_wrong(fields: dict[str, Any], says: str, tmp_path: Path) -> None:
    given = {"name": "t", "train": write_records(tmp_path / "a.json", range(3)), **fields}
    with pytest.raises((ConfigError, InputError), match=says):
        file_task(given.pop("name"), base=tmp_path, **given)


def test_naming_tasks_of_files_loads_nothing_heavy() -> None:
    code = "import sys, tasks.files.task, tasks.mixture; print([m for m in ('numpy', 'PIL', 'pyarrow', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_each_split_has_its_images_beside_it_unless_a_folder_is_named(tmp_path: Path) -> None:
    for split, color in (("train", "red"), ("test", "blue")):
        (tmp_path / split).mkdir()
        Image.new("RGB", (4, 4), color).save(tmp_path / split / "0.png")
        turns = [{"from": "human", "value": "<image>\nWhich color?"}, {"from": "gpt", "value": color}]
        (tmp_path / split / "records.json").write_text(json.dumps([{"id": 0, "image": "0.png", "conversations": turns}]))
    task = file_task("t", train="train/records.json", test="test/records.json", base=tmp_path)
    for split, color in ((Split.TRAIN, (255, 0, 0)), (Split.TEST, (0, 0, 255))):
        assert task.examples(split)[0].images[0].getpixel((0, 0)) == color
