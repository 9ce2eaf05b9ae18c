"""The streaming of large JSON files and the spelling of answers."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import InputError
from tasks.arrow import streaming
from tasks.arrow.answers import normalised, score, targets, vocabulary
from tasks.files import json_text

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(held=st.lists(VALUES, max_size=6), block=st.integers(1, 40), indent=st.none() | st.just(2), escaped=st.booleans())
@settings(max_examples=80, deadline=None)
def test_streamed_elements_are_those_of_the_whole(
    held: list, block: int, indent: int | None, escaped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("json") / "held.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "BLOCK", block)
        path.write_text(json.dumps(held, indent=indent, ensure_ascii=escaped), encoding="utf-8", errors="surrogatepass")
        if "\\ud" not in json.dumps(held):
            assert list(streaming.elements(path)) == held
            whole = {"info": {"a": [1]}, "other": [held, 1], "wanted": held, "last": 3}
            path.write_text(json.dumps(whole, indent=indent, ensure_ascii=escaped), encoding="utf-8")
            assert list(streaming.elements(path, "wanted")) == held


@pytest.mark.parametrize("text", ["", "[1, 2", "[1 2]", '{"wanted": [1', '{"wanted": 3}', '{"other": [1]}', "{", "[1,]", "7"])
def test_broken_json_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    key = "wanted" if text.startswith("{") else None
    with pytest.raises(InputError, match=r"broken\.json: "):
        list(streaming.elements(path, key))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes.", "yes"),
        (" the  Dog\n", "dog"),
        ("two", "2"),
        ("none", "0"),
        ("1,000", "1000"),
        ("10.5", "10.5"),
        ("p.m.", "pm"),
        ("black/white", "black white"),
        ("t-shirt", "t shirt"),
        ("what?", "what"),
        ("hello , world", "hello world"),
        ("dont know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("well", "well"),
        ("a", "a"),
        ("", ""),
    ],
)
def test_answers_are_compared_in_one_spelling(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


@given(st.text(max_size=30))
def test_the_spelling_of_plain_words_is_settled(text: str) -> None:
    plain = "".join(character for character in text if (character.isalpha() and character.isascii()) or character == " ")
    assert normalised(normalised(plain)) == normalised(plain)


def test_scores_by_annotators() -> None:
    assert [score(count) for count in range(11)] == [0.0, 0.3, 0.6, 0.9] + [1.0] * 7


def test_a_vocabulary_is_sorted_and_of_frequent_answers() -> None:
    assert vocabulary(Counter({"no": 9, "yes": 20, "rare": 8, "": 50, "2": 9}), 9) == ("2", "no", "yes")


def test_targets_have_the_vocabulary_first() -> None:
    given_answers = ["zebra"] * 5 + ["No"] * 3 + ["yes."] + ["Yes"]
    assert targets(given_answers, {"no": 0, "yes": 1}) == (["no", "yes", "zebra"], [0, 1], [0.9, 0.6, 1.0])
