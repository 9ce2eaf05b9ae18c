"""What is missing, damaged or not as published is refused before work starts, named, with where to get it."""

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from benchmark_fixtures import cell, countbench, cub200, encoded, hub_table, pathvqa, pixmocount, textvqa, textvqa_site
from pyarrow.parquet import write_table

from foundation.errors import ConfigError, InputError
from tasks.benchmarks.registry import check_options
from tasks.benchmarks.task import benchmark_task
from tasks.task import Split


def refused(error: type[Exception], *messages: str) -> "pytest.RaisesExc":
    return pytest.raises(error, match=".*".join(re.escape(message) for message in messages))


def test_directories_and_files_that_are_missing(tmp_path: Path) -> None:
    with refused(InputError, f"there is no directory {tmp_path / 'nowhere'}"):
        benchmark_task("t", "pathvqa", tmp_path / "nowhere")
    with refused(InputError, "benchmark pathvqa: nobody/no-such-data is not on this machine; bring it"):
        benchmark_task("t", "pathvqa", "nobody/no-such-data")
    with refused(
        InputError, f"{tmp_path} holds no raw files of countbench (test: data/test-*.parquet); get them from vikhyatk/CountBenchQA"
    ):
        benchmark_task("t", "countbench", tmp_path)
    pathvqa(tmp_path)
    shutil.rmtree(tmp_path / "data" / "nothing", ignore_errors=True)
    for path in (tmp_path / "data").glob("train-*"):
        path.unlink()
    task = benchmark_task("t", "pathvqa", tmp_path)
    assert task.check(Split.TEST).usable == 6
    for use in (task.examples, task.only, task.check):
        with refused(InputError, f"{tmp_path}: has no data/train-*.parquet; get the raw files from flaviagiammarino/path-vqa"):
            use(Split.TRAIN)


def test_a_split_that_a_benchmark_does_not_have(tmp_path: Path) -> None:
    task = benchmark_task("t", "countbench", countbench(tmp_path))
    with refused(InputError, "task 't': benchmark countbench has no train split here; it has test; ask for one of these"):
        task.examples(Split.TRAIN)
    with refused(ConfigError, "cannot give -1 examples"):
        task.examples(Split.TEST, -1)


def test_a_split_with_no_question(tmp_path: Path) -> None:
    hub_table(tmp_path, "train", [{"image": cell(place), "time": "3:05"} for place in range(3)])
    task = benchmark_task("t", "timeclock", tmp_path)
    assert len(task.examples(Split.TRAIN)) == 3
    with refused(InputError, "task 't': the validation split of timeclock takes none of the 3 questions in its files; they are too few"):
        task.examples(Split.VALIDATION)


def test_shards_that_are_missing(tmp_path: Path) -> None:
    pathvqa(tmp_path)
    (tmp_path / "data" / "test-00001-of-00002.parquet").unlink()
    with refused(InputError, "1 of 2 shards are missing: test-00001-of-00002; get them from flaviagiammarino/path-vqa"):
        benchmark_task("t", "pathvqa", tmp_path)


def test_columns_answers_and_images_that_are_not_as_published(tmp_path: Path) -> None:
    good = {"image": cell(0), "question": "what?", "answer": "liver"}
    path = tmp_path / "data" / "test-00000-of-00001.parquet"
    cases = [
        (
            {"image": cell(0), "question": "what?"},
            f"{path}: has no column answer; its columns are image, question, and those needed are image, ",
        ),
        ({**good, "answer": " "}, f"row 1 (from 0) of {path}: answer is ' ', not a text"),
        ({**good, "answer": None}, f"row 1 (from 0) of {path}: answer is None, not a text"),
        ({**good, "image": {"bytes": None, "path": "a.png"}}, f"row 1 (from 0) of {path}: image holds no image, but a dict"),
        ({**good, "image": None}, f"row 1 (from 0) of {path}: image holds no image, but nothing"),
    ]
    for bad, message in cases:
        hub_table(tmp_path, "test", [{key: good[key] for key in bad}, bad])
        with refused(InputError, message, "get the file as published, from flaviagiammarino/path-vqa"):
            benchmark_task("t", "pathvqa", tmp_path).check(Split.TEST)


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    whole = encoded(1)
    rows = [{"image": {"bytes": content, "path": ""}, "question": "what?", "answer": "liver"} for content in (whole, whole[:-30], b"GIF?")]
    hub_table(tmp_path, "test", rows)
    task = benchmark_task("t", "pathvqa", tmp_path)
    with refused(
        InputError,
        "2 of 3 records of task 't', split test, cannot be used: 1 with a file that is no image (2: ",
        "1 with an image truncated",
    ):
        task.check(Split.TEST)
    assert task.check(Split.TEST, 1).usable == 1
    with refused(InputError, "task 't', test question 1: with an image truncated", "get them from flaviagiammarino/path-vqa"):
        task.examples(Split.TEST)[1]
    cub200(tmp_path / "cub")
    birds = benchmark_task("birds", "cub200", tmp_path / "cub")
    gone = next((tmp_path / "cub" / "images").glob("*/0002.jpg"))
    content = gone.read_bytes()
    gone.unlink()
    birds = benchmark_task("birds", "cub200", tmp_path / "cub")
    with refused(
        InputError, "1 with an image missing (2: 'images/001.Kind_1_Warbler/0002.jpg')", f"images are looked for in {tmp_path / 'cub'}"
    ):
        birds.check(Split.TEST, decode=False)
    gone.write_bytes(content[:-40])
    birds = benchmark_task("birds", "cub200", tmp_path / "cub")
    assert birds.check(Split.TEST, decode=False).usable == 60
    with refused(InputError, "1 with an image truncated or damaged (2: "):
        birds.check(Split.TEST)


def test_files_that_are_damaged(tmp_path: Path) -> None:
    pathvqa(tmp_path / "p")
    path = tmp_path / "p" / "data" / "test-00000-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with refused(InputError, f"{path}: cannot be read as .parquet", "from flaviagiammarino/path-vqa"):
        benchmark_task("t", "pathvqa", tmp_path / "p").examples(Split.TEST)
    textvqa_site(tmp_path / "t")
    path = tmp_path / "t" / "TextVQA_0.5.1_val.json"
    for content, message in (
        ("{", "Expecting"),
        ("{}", "holds no list of records"),
        ("[1]", "record 0 (from 0) is no object"),
        ("[]", "no rows"),
    ):
        path.write_text(content)
        with refused(InputError, str(path), message, "from lmms-lab/textvqa"):
            benchmark_task("t", "textvqa", tmp_path / "t").examples(Split.TEST)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "images").mkdir()
    (tmp_path / "c" / "images" / "a.png").write_bytes(encoded(0))
    (tmp_path / "c" / "test.csv").write_text("image,time\nimages/a.png,3:05,7\n")
    with refused(InputError, "line 2 has not as many cells as the header line"):
        benchmark_task("t", "timeclock", tmp_path / "c").examples(Split.TEST)


def test_keys_that_stand_twice(tmp_path: Path) -> None:
    textvqa(tmp_path)
    path = tmp_path / "data" / "validation-00000-of-00001.parquet"
    table = pa.parquet.read_table(path)
    write_table(pa.concat_tables([table, table]), path)
    with refused(InputError, "task 't': two questions have the key 200; get the files as published, from lmms-lab/textvqa"):
        benchmark_task("t", "textvqa", tmp_path).check(Split.TEST)


def test_pictures_in_two_splits(tmp_path: Path) -> None:
    pathvqa(tmp_path)
    rows = [{"image": cell(place), "question": "what?", "answer": "liver"} for place in (1, 2, 2, 50)]
    hub_table(tmp_path, "test", rows, shards=2)
    task = benchmark_task("t", "pathvqa", tmp_path)
    message = "train and test of pathvqa share 2 pictures, as those of questions 2 and 0, 4 and 1 (limit 0)"
    for each in (task, task.only(Split.TRAIN)):
        with refused(InputError, message, "set max_shared_pictures: 2 in its options"):
            each.check(Split.TRAIN)
    with refused(InputError, "test and train of pathvqa share 2 pictures"):
        task.check(Split.TEST, 1)
    assert task.check(Split.VALIDATION).usable == 4
    allowed = benchmark_task("t", "pathvqa", tmp_path, {"max_shared_pictures": 2})
    assert allowed == task
    assert allowed.only(Split.TRAIN).check(Split.TRAIN).usable == 10


def test_pictures_in_files_are_compared_by_their_bytes(tmp_path: Path) -> None:
    cub200(tmp_path)
    paths = sorted((tmp_path / "images").glob("*/*.jpg"))
    shutil.copy(paths[0], paths[1])
    with refused(InputError, "share 1 pictures, as those of questions 1 and 2"):
        benchmark_task("t", "cub200", tmp_path).check(Split.TRAIN)
    pixmocount(tmp_path / "p")
    with refused(ConfigError, "likelihood chooses among given answers, and question 0 of pixmocount has none; write answering: generate"):
        benchmark_task("t", "pixmocount", tmp_path / "p", answering="likelihood").check(Split.TEST)


def test_what_is_written_wrongly(tmp_path: Path) -> None:
    cub200(tmp_path)
    for name, benchmark, options, message in (
        ("t", "cub", {}, "unknown benchmark 'cub'; did you mean 'cub200'?"),
        ("t", "cub200", {"sed": 1}, "benchmark cub200: unknown option 'sed'; did you mean 'seed'?"),
        ("t", "cub200", {"max_shared_pictures": -1}, "max_shared_pictures is -1; give a whole number"),
        (" t", "cub200", {}, "a name without space at its ends"),
    ):
        with refused(ConfigError, message):
            benchmark_task(name, benchmark, tmp_path, options)
    with refused(ConfigError, "unknown option 'hour'; did you mean 'hours'?"):
        check_options("timeclock", {"hour": 24})
    check_options("timeclock", {"hours": 24, "max_shared_pictures": 1})
