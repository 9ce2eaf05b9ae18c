"""The nearest right word: found for what people mistype, silent where nothing is close."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.hints import nearest, unknown

KNOWN = ["parity", "count", "wise_ft", "sequential", "learning_rate", "max_steps"]


@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("partiy", "parity"),
        ("Parity", "parity"),
        ("wise-ft", "wise_ft"),
        ("wiseft", "wise_ft"),
        ("LEARNING-RATE", "learning_rate"),
        ("max_step", "max_steps"),
        ("zebra", None),
        ("", None),
    ],
)
def test_nearest(word: str, right: str | None) -> None:
    assert nearest(word, KNOWN) == right


@given(st.text())
def test_nearest_is_one_of_the_known_or_nothing(word: str) -> None:
    assert nearest(word, KNOWN) in (None, *KNOWN)


def test_a_known_word_is_nearest_to_itself() -> None:
    assert [nearest(word, KNOWN) for word in KNOWN] == KNOWN


def test_nothing_is_near_where_nothing_is_known() -> None:
    assert nearest("word", []) is None


def test_the_sentence_names_kind_word_nearest_and_all_known() -> None:
    assert unknown("task", "partiy", ["parity", "count"]) == "unknown task 'partiy'; did you mean 'parity'? Known: count, parity"
    assert unknown("task", "zebra", ["parity", "count"]) == "unknown task 'zebra'; Known: count, parity"
