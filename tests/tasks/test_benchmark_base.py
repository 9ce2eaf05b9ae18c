"""A benchmark as a task: its identity, its splits by picture, its lazy examples, and everything that is refused and how."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from benchmark_fixtures import MADE, cell, hub_table, made, textvqa
from pyarrow.parquet import write_table

from foundation.errors import InputError
from pipeline.step import canonical
from tasks.benchmarks import examples as benchmark_examples
from tasks.benchmarks import survey
from tasks.benchmarks.questions import is_held_back
from tasks.benchmarks.raw import Raw, spellings
from tasks.benchmarks.registry import BENCHMARKS
from tasks.benchmarks.task import BenchmarkTask, benchmark_task
from tasks.outline import has_images, outline
from tasks.task import Answering, Split


def identity(task: BenchmarkTask, split: Split) -> object:
    """What enters the fingerprint of a step that uses one split."""
    return canonical(task.only(split), "task")


def test_moving_the_files_makes_no_other_task(tmp_path: Path) -> None:
    task = made("pathvqa", tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    moved = benchmark_task("pathvqa", "pathvqa", tmp_path / "b", cache=tmp_path / "cache")
    assert moved == task
    assert hash(moved) == hash(task)
    for split in Split:
        assert identity(moved, split) == identity(task, split)
        assert list(moved.examples(split)) == list(task.examples(split))
    assert benchmark_task("other", "pathvqa", tmp_path / "a") != task


def test_files_of_one_split_do_not_change_the_others(tmp_path: Path) -> None:
    before = made("pathvqa", tmp_path)
    hub_table(tmp_path, "test", [{"image": cell(90), "question": "what?", "answer": "liver"}] * 2, shards=2)
    after = benchmark_task("pathvqa", "pathvqa", tmp_path)
    assert identity(after, Split.TRAIN) == identity(before, Split.TRAIN)
    assert identity(after, Split.VALIDATION) == identity(before, Split.VALIDATION)
    assert identity(after, Split.TEST) != identity(before, Split.TEST)
    with pytest.raises(InputError, match=r"the test files have changed since task 'pathvqa' was made from them; run the experiment again"):
        before.examples(Split.TEST)
    assert len(before.examples(Split.TRAIN)) == 10


def test_options_and_answering_are_part_of_the_task_and_answering_not_of_its_training(tmp_path: Path) -> None:
    task = made("cub200", tmp_path)
    other = benchmark_task("cub200", "cub200", tmp_path, {"seed": 1})
    likely = benchmark_task("cub200", "cub200", tmp_path, answering="likelihood")
    assert likely.answering is Answering.LIKELIHOOD
    assert identity(other, Split.TRAIN) != identity(task, Split.TRAIN)
    assert identity(likely, Split.TEST) != identity(task, Split.TEST)
    assert identity(likely, Split.TRAIN) == identity(task, Split.TRAIN)
    assert likely.check(Split.TEST).usable == 60


def test_images_in_files_enter_by_name_and_size(tmp_path: Path) -> None:
    task = made("pixmocount", tmp_path)
    image = sorted((tmp_path / "images").iterdir())[0]
    image.write_bytes(image.read_bytes() + b"\0")
    assert benchmark_task("pixmocount", "pixmocount", tmp_path).train != task.train


@pytest.mark.parametrize("name", ["textvqa", "cub200", "timeclock"])
def test_a_tenth_of_the_training_pictures_is_held_back(name: str, tmp_path: Path) -> None:
    task = made(name, tmp_path)
    raw = task.questions(Split.TRAIN)
    pictures = {split: [raw[number].picture for number in task.examples(split).numbers] for split in (Split.TRAIN, Split.VALIDATION)}
    assert not set(pictures[Split.TRAIN]) & set(pictures[Split.VALIDATION])
    assert len(pictures[Split.TRAIN]) + len(pictures[Split.VALIDATION]) == len(raw)
    assert all(map(is_held_back, pictures[Split.VALIDATION]))
    assert 0 < len(pictures[Split.VALIDATION]) < len(raw) / 3
    for split in (Split.TRAIN, Split.VALIDATION):
        some = task.examples(split, 3)
        assert list(some) == list(task.examples(split))[: len(some)]
        assert len(some) == min(3, len(task.examples(split)))
        assert not len(task.examples(split, 0))


def test_the_share_held_back_is_a_tenth_and_always_the_same() -> None:
    # 10,000 pictures: a standard deviation is 30
    assert abs(sum(is_held_back(f"picture {number}") for number in range(10_000)) - 1000) < 120
    assert [number for number in range(40) if is_held_back(str(number))] == [1, 2, 7, 30]


def test_held_back_does_not_depend_on_the_order_of_the_files(tmp_path: Path) -> None:
    textvqa(tmp_path)
    task = benchmark_task("t", "textvqa", tmp_path)
    before = {example.key for example in task.examples(Split.VALIDATION)}
    path = tmp_path / "data" / "train-00000-of-00001.parquet"
    table = pa.parquet.read_table(path)
    write_table(table.take(list(reversed(range(len(table))))), path)
    assert {example.key for example in benchmark_task("t", "textvqa", tmp_path).examples(Split.VALIDATION)} == before


def test_examples_are_lazy_slices_outlined_without_decoding_and_sent_to_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = made("textvqa", tmp_path)
    examples = task.examples(Split.TRAIN)
    sent = pickle.loads(pickle.dumps(examples))
    assert sent == examples
    assert len(pickle.dumps(examples)) < 4000
    assert list(sent[2:5]) == [examples[2], examples[3], examples[4]]
    assert examples[1:][:2] == examples[1:3]
    assert pickle.loads(pickle.dumps(task)) == task
    monkeypatch.setattr(benchmark_examples, "open_picture", lambda *_: pytest.fail("decoded"))
    found = outline(examples, 3)
    assert found.images[0].size == (6, 5)
    assert found.place == f"question {found.key.rsplit('/', 1)[1]} of the train split in {tmp_path}"
    assert has_images(examples, 3)
    with pytest.raises(IndexError):
        examples[len(examples)]


def test_findings_are_remembered_between_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    textvqa(tmp_path / "raw")
    cache = tmp_path / "cache"
    first = benchmark_task("t", "textvqa", tmp_path / "raw", cache=cache)
    report = first.check(Split.TRAIN)
    expected = list(first.examples(Split.TRAIN))
    monkeypatch.setattr(survey, "_found", {})
    monkeypatch.setattr(survey, "picture_mark", lambda _: pytest.fail("digested again"))
    monkeypatch.setattr(survey, "open_picture", lambda *_: pytest.fail("decoded again"))
    again = benchmark_task("t", "textvqa", tmp_path / "raw", cache=cache)
    assert again.check(Split.TRAIN) == report
    assert list(again.examples(Split.TRAIN)) == expected


def test_it_is_described(tmp_path: Path) -> None:
    assert made("textvqa", tmp_path).describe() == (
        "train: nine tenths of the pictures of the 40 questions of textvqa, to learn from\n"
        "validation: a tenth of the training pictures of the 40 questions of textvqa, answered in words\n"
        "test: 6 questions of textvqa, answered in words"
    )


def refused(error: type[Exception], *messages: str) -> "pytest.RaisesExc":
    return pytest.raises(error, match=".*".join(re.escape(message) for message in messages))


def test_rows_of_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"x": 1, "y": "p"}, {"x": 2, "y": "q"}]')
    (tmp_path / "b.jsonl").write_text('{"x": 3, "y": "r"}\n\n{"x": 4, "y": "s\u2028"}\n')
    (tmp_path / "c.csv").write_text('x,y\n5,"t, ""u"""\n')
    (tmp_path / "d.tsv").write_text("x\ty\n6\tv\n")
    (tmp_path / "e.json").write_text('{"data": [{"x": 7, "y": "w"}]}')
    write_table(pa.table({"x": [8, 9, 10], "y": ["a", "b", "c"]}), tmp_path / "f.parquet", row_group_size=2)
    raw = Raw(tmp_path, "its publisher")
    rows = raw.rows(["*.json", "*.jsonl", "c.csv|nothing.csv", "nothing|d.tsv", "f.*"], ["x", "y"])
    assert [int(row["x"]) for row in rows] == [1, 2, 7, 3, 4, 5, 6, 8, 9, 10] == [row.whole("x") for row in rows]
    assert [row["y"] for row in rows[:4]] == rows.column("y")[:4]
    assert rows[5]["y"] == 't, "u"'
    assert rows[-1].place == f"row 2 (from 0) of {tmp_path / 'f.parquet'}"
    with refused(InputError, "has no column z; its columns are x, y; get the file as published, from its publisher"):
        rows[0]["z"]
    with refused(InputError, "has no column z"):
        rows.column("z")
    with refused(InputError, f"{tmp_path}: has no q.* and no r.*; get the raw files from its publisher"):
        raw.rows(["q.*|r.*"])
    with refused(InputError, "has no classes.txt that can be read"):
        raw.text("classes.txt")
    assert spellings(["a|b", "b", "c"]) == ["a", "b", "c"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_what_it_is(name: str) -> None:
    benchmark = BENCHMARKS[name]()
    assert benchmark.name == name
    assert benchmark.version >= 1
    assert benchmark.source
    assert benchmark.max_new_tokens > 0
    assert benchmark.macro in (True, False)
    assert benchmark.files
    assert (sys.modules[type(benchmark).__module__].__doc__ or "").count("\n") >= 2


def test_it_is_light_to_import() -> None:
    heavy = "('PIL', 'pyarrow', 'numpy', 'torch', 'huggingface_hub', 'sklearn')"
    code = f"import tasks.benchmarks.task, sys; print([name for name in {heavy} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": "."})
    assert told.stdout.strip() == "[]"


def test_every_target_can_be_made_again_and_checked(tmp_path: Path) -> None:
    for name in MADE:
        task = made(name, tmp_path / name)
        again = benchmark_task(name, name, tmp_path / name, cache=tmp_path / "cache")
        assert again == task
        for split in task.digests:
            report = again.only(split).check(split)
            assert (report.usable, report.problems) == (len(task.examples(split)), ())
