"""What a search leaves on disk as it goes, and what it makes of it when it starts again."""

from pathlib import Path

import pytest

from evaluators.scores import TaskScore
from foundation.errors import InputError
from pipeline.search.records import NAME, Ended, Records, files_of
from pipeline.search.spec import Trial


def ended(number: int) -> Ended:
    scores = {"größer": TaskScore(0.1 + number, 1 / 3, 7), "a/b": TaskScore(0.0, 0.0, 7)}
    return Ended(Trial(number, {"alpha": number / 3, "method": "ties"}, 0.1, scores, 7, 1.5, number == 1, 0.2), (0.1, 1 / 7))


def test_what_is_added_is_read_back_to_the_bit(tmp_path: Path) -> None:
    records = Records(tmp_path / "new", "one")
    assert records.read() == {}
    for number in (0, 2, 1):
        records.add(ended(number))
    assert Records(tmp_path / "new", "one").read() == {number: ended(number) for number in (0, 1, 2)}


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_last_line_that_was_cut_off_is_dropped_and_written_over(tmp_path: Path, kept: int) -> None:
    records = Records(tmp_path, "one")
    records.read()
    records.add(ended(0))
    whole = (tmp_path / NAME).read_bytes()
    records.add(ended(1))
    line = (tmp_path / NAME).read_bytes()[len(whole) :]
    (tmp_path / NAME).write_bytes(whole + line[:kept])
    assert Records(tmp_path, "one").read() == {0: ended(0)}
    assert (tmp_path / NAME).read_bytes() == whole
    records.add(ended(1))
    assert Records(tmp_path, "one").read() == {0: ended(0), 1: ended(1)}


def test_a_first_line_that_was_cut_off_begins_anew(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"format"')
    assert Records(tmp_path, "one").read() == {}
    assert Records(tmp_path, "one").read() == {}


def test_another_search_and_damage_are_refused(tmp_path: Path) -> None:
    Records(tmp_path, "one").read()
    with pytest.raises(InputError, match="holds the trials of another search; remove it"):
        Records(tmp_path, "two").read()
    with open(tmp_path / NAME, "a") as file:
        file.write("{}\n")
    with pytest.raises(InputError, match="is damaged"):
        Records(tmp_path, "one").read()


def test_a_checkpoint_that_changes_is_another(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    before = files_of(tmp_path)
    assert before == files_of(tmp_path)
    (tmp_path / "a").write_text("three")
    assert files_of(tmp_path) != before
