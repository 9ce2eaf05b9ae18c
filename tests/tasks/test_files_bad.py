"""What cannot be used is counted, named and refused; within the limit it is left out and told; nothing takes its place."""

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow.parquet import write_table

from foundation.errors import InputError
from tasks.files import apart, check
from tasks.files.images import MOST_PIXELS, decode
from tasks.files.problems import Kind, Unusable
from tasks.files.task import FileTask, file_task
from tasks.task import Split

ASKED, TOLD = {"from": "human", "value": "<image>\nWhich color?"}, {"from": "gpt", "value": "red"}


def talk(*turns: Any, **more: Any) -> dict[str, Any]:
    return {"id": "x", "image": "good.png", "conversations": list(turns), **more}


GOOD = talk(ASKED, TOLD)
BAD: dict[str, tuple[Any, str]] = {
    "a list": ([1], "1 malformed (t/train/r.jsonl/1: is a list, not an object with keys)"),
    "broken text": ('{"id": ', "1 malformed (t/train/r.jsonl/1: is no JSON: Expecting value: line 1 column 7 (char 6))"),
    "other keys": ({"id": 1, "text": "a"}, "has no conversations and no messages; its keys are id, text"),
    "both lists": (talk(ASKED, TOLD, messages=[1]), "has both conversations and messages"),
    "no list": (talk() | {"conversations": "hi"}, "conversations is a str, not a list of turns"),
    "no turns": (talk(), "has no conversations and no messages; its keys are conversations, id, image"),
    "a turn of text": (talk("hi"), "turn 1 is a str, not an object with role and text"),
    "no text": (talk({"from": "human"}, TOLD), "turn 1 has no text"),
    "half a character": (talk({"from": "human", "value": "\ud800"}, TOLD, image=None), "turn 1 holds half a Unicode character"),
    "empty question": (talk(ASKED, TOLD, {"from": "human", "value": " "}, TOLD), "turn 3 asks nothing"),
    "strange part": (
        {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
        "a part of type 'audio'; known: text with its text, image",
    ),
    "image and images": (talk(ASKED, TOLD, images=["a"]), "has both image and images"),
    "image of a number": (talk(ASKED, TOLD, image=3), "an image is given as int, not as a path or bytes"),
    "empty image": (talk(ASKED, TOLD, image=[""]), "an image is empty"),
    "unknown role": (
        talk({"from": "bot", "value": "hi"}, TOLD),
        "1 with wrong roles or turns out of order (t/train/r.jsonl/1/x: turn 1 is by 'bot'; known: human,",
    ),
    "answer first": (talk(TOLD, ASKED), "turn 1 is by the assistant, where the user should speak"),
    "late system": (talk(ASKED, TOLD, {"from": "system", "value": "x"}, TOLD), "turn 3 is by the system, where the user should speak"),
    "two questions": (talk(ASKED, ASKED, TOLD), "turn 2 is by the user, where the assistant should speak"),
    "no answer": (talk(ASKED), "1 without an answer at the end (t/train/r.jsonl/1/x: 1 turn, the last by the user)"),
    "empty answer": (talk(ASKED, {"from": "gpt", "value": " \n"}), "1 with an empty answer (t/train/r.jsonl/1/x: turn 2)"),
    "mark without image": (
        talk(ASKED, TOLD, image=None),
        "1 whose <image> marks do not match their images (t/train/r.jsonl/1/x: 1 <image> mark for 0 images)",
    ),
    "image without mark": (talk(ASKED, TOLD, image=["good.png"] * 2), "1 <image> mark for 2 images"),
    "mark in an answer": (
        talk(ASKED, {"from": "gpt", "value": "<image>"}),
        "turn 2, by 'gpt', holds <image>; only a question can show an image",
    ),
    "video": (talk(ASKED, TOLD, video="a.mp4"), "1 with a video, which no task here shows (t/train/r.jsonl/1/x: a.mp4)"),
    "network": (
        talk(ASKED, TOLD, image="https://x.org/a.jpg"),
        "1 with an image on the network, which is not fetched (t/train/r.jsonl/1/x: https://x.org/a.jpg)",
    ),
    "climbing": (
        talk(ASKED, TOLD, image="../secret.png"),
        "1 with an image outside the image folder (t/train/r.jsonl/1/x: '../secret.png')",
    ),
    "absolute": (talk(ASKED, TOLD, image="/etc/passwd"), "1 with an image outside the image folder (t/train/r.jsonl/1/x: '/etc/passwd')"),
    "missing": (
        talk(ASKED, TOLD, image="nowhere.png"),
        "1 with an image missing (t/train/r.jsonl/1/x: 'nowhere.png') (images are looked for in ",
    ),
    "directory": (
        talk(ASKED, TOLD, image="folder"),
        "1 with an image file that cannot be opened (t/train/r.jsonl/1/x: 'folder' (not a file))",
    ),
    "no image": (talk(ASKED, TOLD, image="text.png"), "1 with a file that is no image (t/train/r.jsonl/1/x: 'text.png')"),
    "truncated": (
        talk(ASKED, TOLD, image="truncated.jpg"),
        "1 with an image truncated or damaged (t/train/r.jsonl/1/x: 'truncated.jpg' (",
    ),
    "bomb": (
        talk(ASKED, TOLD, image="bomb.png"),
        "1 with an image too large (t/train/r.jsonl/1/x: 'bomb.png' (9500 x 9500; at most 89,478,485 pixels))",
    ),
    "frames": (talk(ASKED, TOLD, image="frames.gif"), "1 with an image of several frames (t/train/r.jsonl/1/x: 'frames.gif' (2 frames))"),
    "range": (
        talk(ASKED, TOLD, image="range.tif"),
        "1 with an image whose pixel values have no known range (t/train/r.jsonl/1/x: 'range.tif' (mode F))",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of every kind."""
    folder = tmp_path_factory.mktemp("images")
    red, blue = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    red.save(folder / "good.png")
    red.save(folder / "good.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "good.jpg").read_bytes()[:-200])
    (folder / "text.png").write_text("not an image")
    (folder / "folder").mkdir()
    Image.new("1", (9500, 9500)).save(folder / "bomb.png")
    red.save(folder / "frames.gif", save_all=True, append_images=[blue])
    Image.new("F", (2, 2)).save(folder / "range.tif")
    return folder


def task_of(folder: Path, tmp_path: Path, records: list[Any], **fields: Any) -> FileTask:
    """A task of JSON lines; text stands as it is."""
    path = tmp_path / "r.jsonl"
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in records))
    return file_task("t", train=path, images=folder, **fields)


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize("name", BAD)
def test_each_bad_record_is_refused_by_name(name: str, folder: Path, tmp_path: Path) -> None:
    record, says = BAD[name]
    records = [GOOD, record, {**GOOD, "id": "y"}]
    with pytest.raises(InputError) as error:
        task_of(folder, tmp_path, records).examples(Split.TRAIN)
    said = str(error.value)
    assert said.startswith("1 of 3 records of task 't', split train, cannot be used: 1 ")
    assert says in said
    assert said.endswith("; mend them, or set max_bad_records: 1 to go on without them")
    borne = task_of(folder, tmp_path, records, max_bad_records=1)
    assert [example.key for example in borne.examples(Split.TRAIN)] == ["t/train/r.jsonl/0/x", "t/train/r.jsonl/2/y"]
    (problem,) = borne.check(Split.TRAIN).problems
    assert problem.key.startswith("t/train/r.jsonl/1")
    assert problem.detail in said


def test_every_kind_of_problem_is_provoked_here() -> None:
    """Two kinds need what a test cannot have everywhere or a scoring: a file without permission, an answer without a number."""
    provoked = {kind for kind in Kind for _, says in BAD.values() if kind in says}
    assert set(Kind) - provoked == {Kind.NO_NUMBER}


def test_many_problems_are_counted_by_kind_and_a_few_of_each_named(folder: Path, tmp_path: Path) -> None:
    missing = [talk(ASKED, TOLD, id=f"m{number}", image=f"{number}.png") for number in range(12)]
    empty = [talk(ASKED, {"from": "gpt", "value": ""})] * 5
    task = task_of(folder, tmp_path, [GOOD] * 1983 + missing + empty, max_bad_records=16)
    with pytest.raises(InputError) as error:
        task.check(Split.TRAIN)
    assert str(error.value) == (
        "17 of 2,000 records of task 't', split train, cannot be used: 5 with an empty answer (t/train/r.jsonl/1995/x: turn 2; "
        "t/train/r.jsonl/1996/x: turn 2; t/train/r.jsonl/1997/x: turn 2, ...); 12 with an image missing (t/train/r.jsonl/1983/m0: '0.png'; "
        f"t/train/r.jsonl/1984/m1: '1.png'; t/train/r.jsonl/1985/m2: '2.png', ...) (images are looked for in {folder}); "
        "mend them, or set max_bad_records: 17 (it is 16) to go on without them"
    )
    enough = task_of(folder, tmp_path, [GOOD] * 1983 + missing + empty, max_bad_records=17)
    report = enough.check(Split.TRAIN)
    assert (report.usable, report.looked_at, len(report.problems)) == (1983, 2000, 17)
    assert report.kinds == {Kind.EMPTY_ANSWER: 5, Kind.MISSING: 12}


def test_only_as_many_are_looked_at_as_are_wanted(folder: Path, tmp_path: Path) -> None:
    bad = talk(ASKED, TOLD, image="nowhere.png")
    task = task_of(folder, tmp_path, [bad, *[GOOD] * 99, bad], max_bad_records=1)
    report = task.check(Split.TRAIN, 60)
    assert (report.usable, report.looked_at, report.chosen) == (60, 61, 101)
    assert [example.key.split("/")[3] for example in task.examples(Split.TRAIN, 60)] == [str(row) for row in range(1, 61)]
    with pytest.raises(InputError, match="2 of 101 records"):
        task.examples(Split.TRAIN, 100)


def test_where_none_is_left_there_is_nothing_to_go_on_with(folder: Path, tmp_path: Path) -> None:
    task = task_of(folder, tmp_path, [talk(ASKED)] * 3, max_bad_records=3)
    with pytest.raises(InputError, match="none is left, so there is nothing to go on with"):
        task.examples(Split.TRAIN)


def test_an_answer_without_a_number_cannot_be_scored_by_number(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(GOOD))
    task = file_task("t", test=path, images=folder, scoring="number")
    with pytest.raises(InputError, match=r"1 whose answer holds no number to score by \(t/test/r.jsonl/0/x: 'red'\)"):
        task.examples(Split.TEST)


def test_what_is_sound_is_remembered_by_place_size_and_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    real = check.open_picture
    monkeypatch.setattr(check, "open_picture", lambda folder, picture: opened.append(picture) or real(folder, picture))
    image = tmp_path / "img" / "a.png"
    image.parent.mkdir()
    Image.effect_noise((40, 30), 50).save(image)
    records = [talk(ASKED, TOLD, image="a.png"), talk(ASKED, TOLD, image="./a.png"), talk(ASKED, TOLD, image=str(image))]
    task = task_of(image.parent, tmp_path, records, cache=tmp_path / "cache")
    task.check(Split.TRAIN, decode=False)
    assert opened == []
    task.check(Split.TRAIN)
    task.check(Split.TRAIN)
    assert len(opened) == 1
    check.SoundImages(task.cache).known.clear()  # another process knows only what is written
    task.check(Split.TRAIN)
    assert len(opened) == 1
    content = image.read_bytes()
    image.write_bytes(content[:-60] + bytes(60))  # as long as before, but changed
    os.utime(image, ns=(1, 1))
    with pytest.raises(InputError, match="3 with an image truncated or damaged"):
        task.check(Split.TRAIN)


def test_progress_is_told(folder: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    task_of(folder, tmp_path, [GOOD] * 150).check(Split.TRAIN, progress=lambda done, total: told.append((done, total)))
    assert told == [(64, 150), (128, 150), (150, 150)]


def split_task(folder: Path, tmp_path: Path, train: Any, test: Any) -> FileTask:
    for name, record in (("a", train), ("b", test)):
        (tmp_path / f"{name}.json").write_text(json.dumps([record, talk({"from": "human", "value": name}, TOLD, image=None, id=name)]))
    return file_task("t", train=tmp_path / "a.json", test=tmp_path / "b.json", images=folder)


def test_no_image_and_no_record_is_in_two_splits(folder: Path, tmp_path: Path) -> None:
    other = {"from": "human", "value": "<image>\nAnother question?"}
    with pytest.raises(InputError) as error:
        split_task(folder, tmp_path, talk(ASKED, TOLD), talk(other, TOLD, id="y", image="folder/../good.png"))
    assert str(error.value) == (
        f"task 't': train and test share images: 1, records: 0, the first '{folder / 'good.png'}'; "
        "put each image into one split, with all that is asked about it"
    )
    words = {"from": "human", "value": "Why?"}
    with pytest.raises(InputError, match="images: 0, records: 1, the first a conversation without images"):
        split_task(folder, tmp_path, talk(words, TOLD, image=None, id=1), talk(words, TOLD, image=None, id=2))
    with pytest.raises(InputError, match="images: 0, records: 1, the first the record with id 'x'"):
        split_task(folder, tmp_path, talk(ASKED, TOLD), talk(ASKED, TOLD, image="good.jpg"))
    assert split_task(folder, tmp_path, talk(ASKED, TOLD), talk(other, TOLD, image="good.jpg"))  # numbers from 0 prove nothing


@pytest.mark.parametrize("way", ["copied", "linked", "linked twice"])
def test_an_image_under_another_name_is_the_same(folder: Path, tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, cache = tmp_path / "images", tmp_path / "cache"
    shutil.copytree(folder, images)
    make = {"copied": shutil.copyfile, "linked": lambda a, b: b.symlink_to(a), "linked twice": lambda a, b: b.hardlink_to(a)}
    make[way](images / "good.png", images / "other.png")
    (tmp_path / "a.json").write_text(json.dumps([talk(ASKED, TOLD, id=1), talk(ASKED, TOLD, id=2, image="good.jpg")]))
    (tmp_path / "b.json").write_text(json.dumps([talk(ASKED, TOLD, id=3, image="other.png")]))
    read: list[str] = []
    marked = apart.file_mark
    monkeypatch.setattr(apart, "file_mark", lambda path: read.append(Path(path).name) or marked(path))
    for _ in range(2):
        with pytest.raises(InputError, match=rf"images: 1, .* '{images}/good.png', the same as '{images}/other.png'; put each image"):
            file_task("t", train=tmp_path / "a.json", test=tmp_path / "b.json", images=images, cache=cache)
    assert read == ["good.png", "other.png"]  # not good.jpg, which is of another size; and each once


def test_an_image_held_in_a_record_is_the_same_as_its_file(folder: Path, tmp_path: Path) -> None:
    inline = {"id": "1", "conversations": [ASKED, TOLD], "images": [{"bytes": (folder / "good.png").read_bytes(), "path": None}]}
    write_table(pa.Table.from_pylist([inline]), tmp_path / "a")
    (tmp_path / "b.json").write_text(json.dumps([talk(ASKED, TOLD, id=2)]))
    held, file = "an image held in the records", f"'{folder / 'good.png'}'"
    for train, test, told in (("a", "b.json", f"{held}, the same as {file}"), ("b.json", "a", f"{file}, the same as {held}")):
        with pytest.raises(InputError, match=rf"images: 1, records: 0, the first {told}; put"):
            file_task("t", train=tmp_path / train, test=tmp_path / test, images=folder)


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=5),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_images_are_unusable_and_never_a_crash(form: str, cut: float, changes: list[tuple[float, int]]) -> None:
    sink = io.BytesIO()
    Image.linear_gradient("L").resize((24, 20)).convert("RGB").save(sink, form)
    damaged = bytearray(sink.getvalue()[: max(1, int(cut * sink.tell()))])
    for where, value in changes:
        damaged[int(where * (len(damaged) - 1))] = value
    try:
        image = decode(io.BytesIO(bytes(damaged)), "damaged")
    except Unusable:
        return
    assert image.mode == "RGB"
    assert image.width * image.height <= MOST_PIXELS
