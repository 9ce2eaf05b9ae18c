"""Raw files of the held-out benchmarks that are missing or not as published are refused, named with their place and their source."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from benchmark_fixtures import cell, encoded, hub_table
from benchmark_fixtures_held_out import FIXTURES, docvqa_original, table, written

from foundation.errors import InputError
from tasks.benchmarks.raw import Raw
from tasks.benchmarks.registry import get_benchmark
from tasks.benchmarks.task import benchmark_task
from tasks.task import Split


@pytest.mark.parametrize("name", FIXTURES)
def test_a_missing_column_is_named(name: str, tmp_path: Path) -> None:
    FIXTURES[name](tmp_path)
    file = next(path for path in sorted(tmp_path.rglob("*.parquet")) if "train" not in path.name)
    columns = {"infovqa": "answers", "docvqa": "answers"}
    lost = columns.get(name, "answer")
    pq.write_table(pq.read_table(file).drop_columns([lost]), file)
    with pytest.raises(InputError, match=f"no column {lost}") as told:
        list(benchmark_task(name, name, tmp_path).examples(Split.TEST))
    assert str(file) in str(told.value)
    assert get_benchmark(name).source in str(told.value)


@pytest.mark.parametrize("name", FIXTURES)
def test_an_image_that_is_none_is_refused_before_work(name: str, tmp_path: Path) -> None:
    FIXTURES[name](tmp_path)
    file = next(path for path in sorted(tmp_path.rglob("*.parquet")) if "train" not in path.name)
    rows = pq.read_table(file).to_pylist()
    broken = {"bytes": b"no image", "path": "x.png"}
    rows[0]["image"] = [broken] if isinstance(rows[0]["image"], list) else broken
    table(file, rows)
    with pytest.raises(InputError, match=r"is no image|not an image") as told:
        benchmark_task(name, name, tmp_path).check(Split.TEST)
    assert get_benchmark(name).source in str(told.value)


@pytest.mark.parametrize("name", FIXTURES)
def test_an_empty_directory_says_what_is_lacking_and_where_it_is_to_be_had(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as told:
        benchmark_task(name, name, tmp_path)
    assert get_benchmark(name).source in str(told.value)
    with pytest.raises(InputError) as told:
        Raw(tmp_path, get_benchmark(name).source).files(get_benchmark(name).files[Split.TEST])
    assert str(tmp_path) in str(told.value)


BAD = [
    ("ai2d", {"question": "Q?", "options": ["a", "b"], "answer": "2"}, "answer is 2, and the options are 0 to 1"),
    ("ai2d", {"question": "Q?", "options": ["a", "b"], "answer": None}, "answer is None"),
    ("ai2d", {"question": "Q?", "options": ["a"], "answer": "0"}, "1 options"),
    ("ai2d", {"question": "Q?", "options": ["a", None], "answer": "0"}, "options is"),
    ("ai2d", {"question": "Q?", "options": ["", " "], "answer": "0"}, "options is"),
    ("chartqa", {"type": "human_test", "question": "Q?", "answer": ""}, "the answer is ''"),
    ("chartqa", {"type": "human", "question": "Q?", "answer": "3"}, "human_test"),
    ("realworldqa", {"question": "Q?", "answer": " "}, "answer is ' '"),
    ("ocrbench", {"question": "Q?", "answer": [" "], "question_type": "T", "dataset": "D"}, "answer is"),
    ("ocrbench", {"question": "Q?", "answer": [], "question_type": "T", "dataset": "D"}, "answer is"),
    ("ocrbench", {"question": "Q?", "answer": ["x"], "question_type": "T", "dataset": "HME100k"}, "go together"),
    ("mmstar", {"index": 0, "question": "Q?", "answer": "E", "category": "math"}, "none of A, B, C, D"),
    ("mmstar", {"index": 0, "question": "", "answer": "A", "category": "math"}, "question is ''"),
]


@pytest.mark.parametrize(("name", "row", "wrong"), BAD)
def test_a_bad_record_is_named(name: str, row: dict[str, Any], wrong: str, tmp_path: Path) -> None:
    sound, file = {**row, "image": cell(1)}, "mmstar.parquet" if name == "mmstar" else "data/test-00000-of-00001.parquet"
    if name == "mmstar":
        table(tmp_path / file, [sound])
    else:
        hub_table(tmp_path, "test", [sound])
    with pytest.raises(InputError) as told:
        benchmark_task(name, name, tmp_path).check(Split.TEST)
    assert wrong in str(told.value)
    assert f"row 0 (from 0) of {tmp_path / file}" in str(told.value)


def test_seedbench_names_bad_frames_letters_and_kinds(tmp_path: Path) -> None:
    FIXTURES["seedbench"](tmp_path)
    file = tmp_path / "data" / "test-00000-of-00001.parquet"
    rows = pq.read_table(file).to_pylist()
    for change, wrong in (
        ({"data_type": "sound"}, "neither image nor video"),
        ({"answer": "E"}, "none of A, B, C, D"),
        ({"image": []}, "holds 0 images"),
        ({"image": [cell(1), {"bytes": None, "path": "x"}]}, "holds 1 images in 2 places"),
    ):
        table(file, [{**rows[0], **change}, *rows[1:]])
        with pytest.raises(InputError, match=wrong):
            list(benchmark_task("s", "seedbench", tmp_path).examples(Split.TEST))


def test_missing_images_and_damaged_files_of_the_challenge_are_named(tmp_path: Path) -> None:
    docvqa_original(tmp_path)
    (tmp_path / "spdocvqa_images" / "val_1.png").unlink()
    with pytest.raises(InputError, match=r"spdocvqa_images/val_1\.png"):
        benchmark_task("d", "docvqa", tmp_path).check(Split.TEST)
    (tmp_path / "spdocvqa_images" / "val_1.png").write_bytes(encoded(3)[:40])
    with pytest.raises(InputError, match=r"spdocvqa_images/val_1\.png"):
        benchmark_task("d", "docvqa", tmp_path).check(Split.TEST)
    name = tmp_path / "spdocvqa_qas" / "val_v1.0_withQT.json"
    held = json.loads(name.read_text())
    del held["data"][1]["answers"]
    written(name, held)
    with pytest.raises(InputError, match=r"row 1 \(from 0\).*answers"):
        benchmark_task("d", "docvqa", tmp_path).check(Split.TEST)
    name.write_text("{")
    with pytest.raises(InputError, match="val_v1"):
        benchmark_task("d", "docvqa", tmp_path).check(Split.TEST)
