"""What every sample of every trial scored: written trial by trial, gathered in one file of bounded size, read back to the bit."""

from pathlib import Path

import pytest

from foundation.errors import InputError
from pipeline.search.answers import ANSWERS_FILE, answers_of, keep, place_of, read_answers, write_answers
from pipeline.search.spec import Trial

SCORED = {"größer": {2: 1 / 3, 0: 1.0, 1: 0.0}, "a/b": {0: 0.1, 5: 0.7}}


def trial(number: int, value: float = 0.5, stopped: bool = False) -> Trial:
    return Trial(number, {"alpha": number / 10}, value, stopped=stopped)


def kept(scratch: Path, *numbers: int) -> None:
    scratch.mkdir(exist_ok=True)
    for number in numbers:
        keep(scratch, number, answers_of({"one": {row: number + row / 7 for row in range(10)}}))


def test_answers_come_back_to_the_bit(tmp_path: Path) -> None:
    keep(tmp_path, 3, answers_of(SCORED))
    assert write_answers(tmp_path, [trial(3)], tmp_path / ANSWERS_FILE) == 1
    found = read_answers(tmp_path / ANSWERS_FILE)[3]
    assert {task: dict(zip(found.rows[task].tolist(), found.scores[task].tolist(), strict=True)) for task in found.rows} == SCORED
    assert list(found.rows["größer"]) == [0, 1, 2]


def test_of_too_many_the_best_stay(tmp_path: Path) -> None:
    kept(tmp_path, 0, 1, 2, 3)
    trials = [trial(0, 0.1), trial(1, 0.9, stopped=True), trial(2, 0.3), trial(3, 0.2)]
    assert write_answers(tmp_path, trials, tmp_path / ANSWERS_FILE, most=25) == 2
    found = read_answers(tmp_path / ANSWERS_FILE)
    assert list(found) == [2, 3]
    assert found[2].scores["one"].tolist() == [2 + row / 7 for row in range(10)]
    assert list(read_answers(tmp_path / ANSWERS_FILE, [3, 9])) == [3]


def test_a_trial_without_answers_is_left_out(tmp_path: Path) -> None:
    kept(tmp_path, 1)
    assert write_answers(tmp_path, [trial(0), trial(1)], tmp_path / ANSWERS_FILE) == 1
    place_of(tmp_path, 1).unlink()
    assert write_answers(tmp_path, [trial(0), trial(1)], tmp_path / "none") == 0
    assert read_answers(tmp_path / "none") == {}


def test_scores_that_repeat_take_little_room(tmp_path: Path) -> None:
    for number in range(20):
        keep(
            tmp_path, number, answers_of({task: {row: float(row * number % 3 == 0) for row in range(200)} for task in map(str, range(10))})
        )
    write_answers(tmp_path, [trial(number) for number in range(20)], tmp_path / ANSWERS_FILE)
    assert (tmp_path / ANSWERS_FILE).stat().st_size < 20 * 10 * 200


def test_damage_is_told(tmp_path: Path) -> None:
    (tmp_path / ANSWERS_FILE).write_bytes(b"PAR1nothing")
    with pytest.raises(InputError, match="cannot be read as the answers of a search"):
        read_answers(tmp_path / ANSWERS_FILE)
