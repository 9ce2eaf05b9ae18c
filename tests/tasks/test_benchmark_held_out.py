"""The held-out benchmarks are read as published: what is asked, what is right, which split a question is in, and what is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_fixtures import cell, encoded, hub_table
from benchmark_fixtures_held_out import (
    CATEGORIES,
    FIXTURES,
    PAGES,
    chartqa_original,
    chartqa_with_training,
    docvqa_original,
    infovqa_original,
    table,
)

from foundation.errors import ConfigError
from tasks.benchmarks.task import BenchmarkTask, benchmark_task
from tasks.outline import outline
from tasks.task import Example, Split

LETTER_ONLY = "Answer with the option's letter from the given choices directly."
SHORT = "Answer the question using a single word or phrase."

NUMBERS = {
    "ai2d": {"test": 3},
    "chartqa": {"test": 3},
    "docvqa": {"train": 2 * PAGES, "test": 6},
    "infovqa": {"test": 3},
    "realworldqa": {"test": 3},
    "ocrbench": {"test": 3},
    "seedbench": {"test": 3},
    "scienceqa": {"train": 2, "validation": 2, "test": 2},
    "mmstar": {"test": 6},
}
"""Questions of each published split that the small benchmarks have."""

LIMITS = {
    "ai2d": 16,
    "chartqa": 16,
    "docvqa": 32,
    "infovqa": 32,
    "realworldqa": 16,
    "ocrbench": 64,
    "seedbench": 16,
    "scienceqa": 16,
    "mmstar": 32,
}


def made(name: str, directory: Path, **options: Any) -> BenchmarkTask:
    return benchmark_task(name, name, FIXTURES[name](directory), options)


def held_in(name: str, directory: Path, **options: Any) -> list[Example]:
    """The test questions in the order of their keys: some benchmarks are asked in a drawn order."""
    return in_order(made(name, directory, **options))


def in_order(task: BenchmarkTask, split: Split = Split.TEST) -> list[Example]:
    return sorted(task.examples(split), key=lambda example: example.key)


@pytest.mark.parametrize("name", FIXTURES)
def test_every_split_is_read_and_right_answers_score_one(name: str, tmp_path: Path) -> None:
    task = made(name, tmp_path)
    assert task.max_new_tokens == LIMITS[name]
    for split, number in NUMBERS[name].items():
        held_back = "validation" not in NUMBERS[name] and split == "train"
        parts = [task.examples(Split(split)), *([task.examples(Split.VALIDATION)] if held_back else [])]
        assert sum(map(len, parts)) == number
        for examples in parts:
            assert len({example.key for example in examples}) == len(examples)
            for place, example in enumerate(examples):
                assert example.images
                assert all(image.mode == "RGB" for image in example.images)
                assert len(outline(examples, place).images) == len(example.images)
                assert task.score(example.answer, example) == 1.0
                assert task.score("", example) == 0.0
                assert not example.choices or example.answer in example.choices
                assert all(task.score(choice, example) == float(choice == example.answer) for choice in example.choices)
                assert not example.references or all(task.score(text, example) == 1.0 for text in example.references)
        for few in (0, 1):
            assert [each.key for each in task.examples(Split(split), few)] == [each.key for each in task.examples(Split(split))][:few]
    assert task.check(Split.TEST).usable == NUMBERS[name]["test"]


def test_ai2d_asks_for_a_letter(tmp_path: Path) -> None:
    first = held_in("ai2d", tmp_path)[0]
    assert first.question == f"What is 0?\nA. a dog\nB. the cat\nC. dog house\nD. none of these\n{LETTER_ONLY}"
    assert (first.answer, first.choices) == ("B", ("A", "B", "C", "D"))


def test_scienceqa_shows_the_hint_and_never_what_explains_the_answer(tmp_path: Path) -> None:
    first, second = held_in("scienceqa", tmp_path)
    assert first.question == f"Which is 0?\nA. yes\nB. no\n{LETTER_ONLY}"
    assert second.question == f"Context: Two magnets.\nWhich is 1?\nA. yes\nB. no\nC. perhaps\n{LETTER_ONLY}"
    assert [each.answer for each in (first, second)] == ["A", "B"]
    assert [each.choices for each in (first, second)] == [("A", "B"), ("A", "B", "C")]
    assert [each.group for each in (first, second)] == ["natural science", "social science"]


def test_seedbench_shows_all_frames_of_a_video_and_chooses_a_part(tmp_path: Path) -> None:
    images, _, video = held_in("seedbench", tmp_path)
    assert images.question == f"What happens in 0?\nA. a of 0\nB. b of 0\nC. c of 0\nD. d of 0\n{LETTER_ONLY}"
    assert [each.group for each in (images, video)] == ["image", "video"]
    assert (len(images.images), len(video.images)) == (1, 3)
    assert images.key == "seedbench/test/101669"
    assert [each.key for each in held_in("seedbench", tmp_path, part="image")] == ["seedbench/test/101669", "seedbench/test/101670"]
    assert [each.key for each in held_in("seedbench", tmp_path, part="video")] == ["seedbench/test/101671"]
    with pytest.raises(ConfigError, match="images"):
        made("seedbench", tmp_path, part="images")


def test_mmstar_keeps_its_question_and_finds_its_letters(tmp_path: Path) -> None:
    task = made("mmstar", tmp_path)
    found = in_order(task)
    assert task.macro
    assert [each.group for each in found] == list(CATEGORIES)
    assert found[0].question.startswith("What is shown in 0?\nOptions: A: The suitcase is on the book., B: The suitcase")
    assert found[0].question.endswith(f"D: Beneath the book.\n{LETTER_ONLY}")
    assert [each.choices for each in found[:1] + found[3:5]] == [("A", "B", "C", "D"), ("A", "B", "C", "D"), ("A", "B")]
    assert task.score("on the bed", found[2]) == 0.0
    assert task.score("On the bed.", found[3]) == 0.0  # its question shows no options
    assert task.score("24", found[4]) == 1.0


def test_realworldqa_is_asked_as_published(tmp_path: Path) -> None:
    wheel, cars, light = held_in("realworldqa", tmp_path)
    assert wheel.question.endswith(
        "A. Left\nB. Right\nC. Straight\nPlease answer directly with only the letter of the correct option and nothing else."
    )
    assert (wheel.choices, cars.choices, light.choices) == (("A", "B", "C"), (), ())
    task = made("realworldqa", tmp_path)
    assert [task.score(said, each) for said, each in (("right", wheel), ("three", cars), ("yes.", light))] == [1.0, 1.0, 1.0]
    likely = benchmark_task("r", "realworldqa", tmp_path, answering="likelihood")
    with pytest.raises(ConfigError, match="likelihood"):
        likely.check(Split.TEST)


BLOCKS = {
    "mmstar": ("category", "math", "logical reasoning"),
    "ocrbench": ("question_type", "T", "U"),
    "chartqa": ("type", "human_test", "augmented_test"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_what_is_published_type_by_type_is_asked_in_a_drawn_order(name: str, tmp_path: Path) -> None:
    """Of 300 questions in two blocks the first 40 are all of one block with probability 2 ** -39; here the draw is fixed."""
    own = {"index": 0, "l2_category": "", "dataset": "IIIT5K", "question": "Q?", "image": cell(1), "answer": "A"}
    kinds = {
        "mmstar": ("category", "math", "logical reasoning"),
        "ocrbench": ("question_type", "T", "U"),
        "chartqa": ("type", "human_test", "augmented_test"),
    }
    column, *blocks = kinds[name]
    rows = [{**own, column: blocks[n // 150], "index": n, "answer": ["A"] if name == "ocrbench" else "A"} for n in range(300)]
    if name == "mmstar":
        table(tmp_path / "mmstar.parquet", rows)
    else:
        hub_table(tmp_path, "test", rows, group=100)
    task = benchmark_task(name, name, tmp_path)
    first = task.examples(Split.TEST, 40)
    assert {example.group for example in first} == {example.group for example in task.examples(Split.TEST)}
    assert 10 <= sum(example.group == first[0].group for example in first) <= 30
    assert len({example.key for example in task.examples(Split.TEST)}) == 300


def test_ocrbench_groups_by_type(tmp_path: Path) -> None:
    word, date, formula = held_in("ocrbench", tmp_path)
    assert date.references == ("May 5, 1970", "5 May 1970")
    assert [each.group for each in (word, date)] == ["Regular Text Recognition", "Doc-oriented VQA"]
    task = made("ocrbench", tmp_path)
    assert task.score("x^{2}+Y", formula) == 1.0


def test_chartqa_is_read_in_three_formats(tmp_path: Path) -> None:
    human, augmented, _ = held_in("chartqa", tmp_path / "a")
    assert human.question == f"How many bars?\n{SHORT}"
    assert [human.group, augmented.group] == ["human", "augmented"]
    hub = benchmark_task("c", "chartqa", chartqa_with_training(tmp_path / "b"))
    assert {split: len(hub.examples(split)) for split in Split} == dict.fromkeys(Split, 3)
    assert [each.group for each in hub.examples(Split.TRAIN)] == ["human", "augmented", "human"]
    own = benchmark_task("c", "chartqa", chartqa_original(tmp_path / "c"))
    test = in_order(own)
    assert [each.group for each in test] == ["human", "human", "augmented", "augmented"]
    assert [each.answer for each in test] == ["0.5", "1.5", "1.5", "2.5"]
    assert all(own.check(split).usable == 4 for split in Split)
    shutil.rmtree(tmp_path / "c" / "ChartQA Dataset" / "train")
    assert len(benchmark_task("c", "chartqa", tmp_path / "c").examples(Split.TEST)) == 4


@pytest.mark.parametrize(("name", "fixture"), [("docvqa", docvqa_original), ("infovqa", infovqa_original)])
def test_the_challenge_files_hold_back_a_tenth_of_the_pages(name: str, fixture: Callable[[Path], Path], tmp_path: Path) -> None:
    task = benchmark_task("d", name, fixture(tmp_path))
    split = {each: [example.key for example in task.examples(each)] for each in Split}
    assert len(split[Split.TEST]) == 4
    assert len(split[Split.TRAIN]) + len(split[Split.VALIDATION]) == 2 * PAGES
    assert 0 < len(split[Split.VALIDATION]) < PAGES / 2
    pages = {
        each: {task.questions(each)[int(key.rsplit("/", 1)[1])].picture for key in split[each]} for each in (Split.TRAIN, Split.VALIDATION)
    }
    assert not pages[Split.TRAIN] & pages[Split.VALIDATION]
    assert task.examples(Split.TEST)[0].question == f"What is 0?\n{SHORT}"
    assert all(task.check(each).usable == len(split[each]) for each in Split)


def test_the_first_release_of_docvqa_has_a_folder_for_each_split(tmp_path: Path) -> None:
    docvqa_original(tmp_path)
    for part in ("train", "val"):
        (tmp_path / part / "documents").mkdir(parents=True)
        (tmp_path / "spdocvqa_qas" / f"{part}_v1.0_withQT.json").rename(tmp_path / part / f"{part}_v1.0.json")
        for path in sorted((tmp_path / "spdocvqa_images").glob(f"{part}_*")):
            path.rename(tmp_path / part / "documents" / path.name)
    task = benchmark_task("d", "docvqa", tmp_path)
    assert task.check(Split.TEST).usable == 4
    assert task.check(Split.TRAIN).usable + task.check(Split.VALIDATION).usable == 2 * PAGES


def test_documents_in_a_table_hold_back_a_tenth_too(tmp_path: Path) -> None:
    task = made("docvqa", tmp_path)
    numbers = {each: len(task.examples(each)) for each in Split}
    assert numbers[Split.TEST] == 6
    assert 0 < numbers[Split.VALIDATION] < PAGES / 2
    assert task.examples(Split.TEST)[1].references == ("May 1, 1970", "May 1 1970")


def test_images_of_the_challenge_enter_the_identity(tmp_path: Path) -> None:
    docvqa_original(tmp_path)
    before = benchmark_task("d", "docvqa", tmp_path)
    (tmp_path / "spdocvqa_images" / "val_1.png").write_bytes(encoded(3, size=(9, 9)))
    assert benchmark_task("d", "docvqa", tmp_path).test != before.test
    moved = shutil.move(tmp_path, tmp_path.parent / "elsewhere")
    assert benchmark_task("d", "docvqa", moved).test == benchmark_task("d", "docvqa", moved).test
