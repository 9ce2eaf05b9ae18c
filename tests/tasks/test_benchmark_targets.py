"""The target benchmarks are read as published: what is asked, what is right, which split a question is in."""

import re
from collections import Counter
from pathlib import Path

import pytest
from benchmark_fixtures import MADE, cub200, encoded, hub_table, made, pair_lines, pixmocount, textvqa_site, timeclock_csv

from foundation.errors import ConfigError, InputError
from tasks.benchmarks.cub200 import WORDINGS
from tasks.benchmarks.task import benchmark_task
from tasks.outline import outline
from tasks.task import Detailed, Split, Task

NUMBERS = {
    "cub200": {"train": 60, "test": 60},
    "pixmocount": {"train": 6, "validation": 2, "test": 3},
    "countbench": {"test": 4},
    "timeclock": {"train": 24, "test": 3},
    "pathvqa": {"train": 10, "validation": 4, "test": 6},
    "textvqa": {"train": 40, "test": 6},
}
"""Questions of each published split."""


@pytest.mark.parametrize("name", MADE)
def test_every_split_is_read_and_right_answers_score_one(name: str, tmp_path: Path) -> None:
    task = made(name, tmp_path)
    assert isinstance(task, Task)
    assert isinstance(task, Detailed)
    for split, number in NUMBERS[name].items():
        held_back = "validation" not in NUMBERS[name] and split == "train"
        parts = [task.examples(Split(split)), *([task.examples(Split.VALIDATION)] if held_back else [])]
        assert sum(map(len, parts)) == number
        for examples in parts:
            keys = [example.key for example in examples]
            assert len(set(keys)) == len(keys)
            for place, example in enumerate(examples):
                assert example.key.startswith(f"{name}/{examples.split}/")
                assert len(example.images) == 1
                assert example.images[0].mode == "RGB"
                assert outline(examples, place).images[0].size == example.images[0].size
                assert outline(examples, place).turns == example.turns
                assert task.score(example.answer, example) == 1.0
                assert task.score("", example) == 0.0
                assert all(0 <= value <= 1 for value in task.measures(example.answer, example).values())
    assert task.check(Split.TEST).usable == NUMBERS[name]["test"]


def test_cub_draws_options_by_the_image(tmp_path: Path) -> None:
    task = made("cub200", tmp_path / "a")
    examples = list(task.examples(Split.TEST))
    for example in examples:
        wording, *options, instruction = example.question.split("\n")
        assert wording in WORDINGS
        assert instruction == "Answer with the letter of the right option only."
        assert [option[:3] for option in options] == [f"{letter}. " for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
        assert len(set(options)) == 26
        number = int(example.key.rsplit("/", 1)[1])
        assert options[ord(example.answer) - ord("A")] == f"{example.answer}. Kind {(number - 1) // 4 + 1} Warbler"
        assert "".join(example.choices) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    orders = [[option[3:] for option in example.question.split("\n")[1:-1]] for example in examples]
    assert len(set(map(frozenset, orders))) == 60  # drawn for each image, not for each kind of bird
    birds = [order[ord(example.answer) - ord("A")] for order, example in zip(orders, examples, strict=True)]
    assert len(set(birds[:20])) >= 12  # the list goes bird by bird, the questions do not
    alike = [[order for order, name in zip(orders, birds, strict=True) if name == bird] for bird in sorted(set(birds))]
    assert all([name for name in one if name in other] != [name for name in other if name in one] for one, other in alike)
    # 60 images: all ten wordings and most letters turn up, none by far too often
    assert len({example.question.split("\n")[0] for example in examples}) == 10
    letters = Counter(example.answer for example in examples)
    assert len(letters) >= 18
    assert max(letters.values()) <= 9
    lines = (tmp_path / "a" / "images.txt").read_text().splitlines()
    (tmp_path / "a" / "images.txt").write_text("\n".join(reversed(lines)) + "\n")
    assert list(benchmark_task("cub200", "cub200", tmp_path / "a").examples(Split.TEST)) == examples
    other = {example.key: example for example in benchmark_task("cub200", "cub200", tmp_path / "a", {"seed": 1}).examples(Split.TEST)}
    assert all(other[example.key].question != example.question for example in examples)


def test_cub_says_what_is_wrong(tmp_path: Path) -> None:
    cub200(tmp_path)
    pair_lines(tmp_path / "image_class_labels.txt", [(1, 1)])
    with pytest.raises(InputError, match=r"image 2 .* has no class in image_class_labels.txt"):
        benchmark_task("birds", "cub200", tmp_path).examples(Split.TEST)
    cub200(tmp_path)
    pair_lines(tmp_path / "train_test_split.txt", [(1, 1), (2, 7)])
    with pytest.raises(InputError, match=r"image 2 .* is in no split of train_test_split.txt"):
        benchmark_task("birds", "cub200", tmp_path).examples(Split.TEST)
    cub200(tmp_path)
    (tmp_path / "classes.txt").write_text("1 001.Albatross\n2\n")
    with pytest.raises(InputError, match=r"classes.txt, line 2: '2' is no pair"):
        benchmark_task("birds", "cub200", tmp_path).examples(Split.TEST)
    (tmp_path / "classes.txt").write_text("1 001.Albatross\n")
    with pytest.raises(InputError, match="names 1 birds, fewer than 26"):
        benchmark_task("birds", "cub200", tmp_path).examples(Split.TEST)
    with pytest.raises(ConfigError, match="seed is 'x'"):
        benchmark_task("birds", "cub200", tmp_path, {"seed": "x"})


def test_pixmo_learns_sentences_and_is_asked_for_integers(tmp_path: Path) -> None:
    task = made("pixmocount", tmp_path)
    train = [(example.question, example.answer) for example in task.examples(Split.TRAIN)]
    assert train[0] == ("How many dogs are in this image?", "There are 0 dogs in this image.")
    assert train[1][1] == "There is 1 dogs in this image."
    test = task.examples(Split.TEST)[0]
    assert (test.question, test.answer) == ("How many dogs are in this image?\nAnswer with an integer only.", "0")


def test_pixmo_images_that_are_gone_are_refused_or_left_out(tmp_path: Path) -> None:
    pixmocount(tmp_path)
    (tmp_path / "images" / f"{9:064x}.jpg").unlink()
    task = benchmark_task("p", "pixmocount", tmp_path)
    with pytest.raises(InputError, match=r"1 of 3 images are not in images/, as images/0+9.jpg; .* missing_images: leave_out"):
        task.examples(Split.TEST)
    left = benchmark_task("p", "pixmocount", tmp_path, {"missing_images": "leave_out"})
    assert [example.key for example in left.examples(Split.TEST)] == ["p/test/0", "p/test/2"]
    with pytest.raises(ConfigError, match="unknown way 'leaveout'; did you mean 'leave_out'"):
        benchmark_task("p", "pixmocount", tmp_path, {"missing_images": "leaveout"})


def test_pixmo_tables_may_hold_their_images(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": encoded(place), "path": None}, "count": 17, "label": "boats"} for place in range(2)]
    hub_table(tmp_path, "test", rows)
    examples = benchmark_task("p", "pixmocount", tmp_path).examples(Split.TEST)
    assert [example.answer for example in examples] == ["17", "17"]


def test_clocks_are_read_from_tables_and_from_csv(tmp_path: Path) -> None:
    task = made("timeclock", tmp_path / "hub")
    assert [example.answer for example in task.examples(Split.TEST)] == ["03:00", "04:05", "05:10"]
    plain = benchmark_task("c", "cococlock", timeclock_csv(tmp_path / "csv"))
    assert [example.answer for example in plain.examples(Split.TEST)] == ["02:07", "03:07", "04:07", "05:07", "06:07"]
    assert plain.max_new_tokens == 32
    with pytest.raises(ConfigError, match="hours is 13; give 12 or 24"):
        benchmark_task("c", "timeclock", tmp_path / "hub", {"hours": 13})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"time": "25:00"}, "row 0 (from 0) of {path}: time is '25:00', not a time of day as 3:05"),
        ({"time": ""}, "row 0 (from 0) of {path}: time is '', not a text"),
        ({"hour": 3, "minute": 60}, "hour and minute is '3:60', not a time of day"),
        ({"hour": 3}, "has no column time or label, and no columns hour and minute; its columns are image, hour"),
        ({"hour": 3, "minute": 2.5}, "minute is 2.5, not a whole number"),
    ],
)
def test_clocks_without_a_time_are_refused(row: dict[str, object], message: str, tmp_path: Path) -> None:
    hub_table(tmp_path, "test", [{"image": {"bytes": encoded(0), "path": None}, **row}])
    path = tmp_path / "data" / "test-00000-of-00001.parquet"
    with pytest.raises(InputError, match=re.escape(message.format(path=path)) + ".*AvaXiao/clockreading-time"):
        benchmark_task("c", "timeclock", tmp_path).check(Split.TEST)


def test_textvqa_reads_hub_and_site_alike(tmp_path: Path) -> None:
    hub, site = made("textvqa", tmp_path / "hub"), benchmark_task("textvqa", "textvqa", textvqa_site(tmp_path / "site"))
    for split in Split:
        ours, theirs = hub.examples(split), site.examples(split)
        assert [(example.key, example.turns, example.references) for example in ours] == [
            (example.key, example.turns, example.references) for example in theirs
        ]
    example = site.examples(Split.TEST)[0]
    assert example.key == "textvqa/test/200"
    assert example.question == "who made this?\nAnswer the question using a single word or phrase."
    assert example.answer == "nokia"
    assert len(example.references) == 10


def test_textvqa_wants_ten_answers(tmp_path: Path) -> None:
    row = {"image": {"bytes": encoded(0), "path": None}, "image_id": "a", "question_id": 1, "question": "who?"}
    for answers, message in ((["x"] * 9, "answers holds 9 answers"), ([" "] * 10, "no answer that is not empty"), ([], "not a list")):
        hub_table(tmp_path, "validation", [{**row, "answers": answers}])
        with pytest.raises(InputError, match=message):
            benchmark_task("t", "textvqa", tmp_path).check(Split.TEST)


def test_pathvqa_counts_yes_and_no_only_where_they_are_asked(tmp_path: Path) -> None:
    task = made("pathvqa", tmp_path)
    closed, free = task.examples(Split.TEST, 2)
    assert task.measures("yes", closed)["yes_no"] == 1.0
    assert "yes_no" not in task.measures("yes", free)
