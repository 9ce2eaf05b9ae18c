"""Sampling strategies against what they say, and the scorings that files may name."""

from fractions import Fraction
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import ConfigError
from tasks.files.sampling import parse_sampling
from tasks.files.scoring import SCORINGS, contains, first_number, number_match

totals = st.integers(1, 300)
percents = st.integers(0, 1000).map(lambda tenths: Fraction(tenths, 10))


def chosen(text: str, total: int, address: str = "a") -> list[int]:
    return list(parse_sampling(text, "here").choose(total, address, "here"))


def part(percent: Fraction, total: int) -> int:
    """A percentage of `total`, rounded up to whole records."""
    return ceil(percent * total / 100)


@settings(deadline=None)
@given(total=totals, percent=percents.filter(bool))
def test_percentages_take_that_part_from_either_end(total: int, percent: Fraction) -> None:
    everything, count = list(range(total)), part(percent, total)
    assert chosen(f"first:{float(percent)}%", total) == everything[:count]
    assert chosen(f"end:{float(percent)}%", total) == everything[total - count :]
    drawn = chosen(f"random:{float(percent)}%", total)
    assert len(drawn) == len(set(drawn)) == count
    assert set(drawn) <= set(everything)


@settings(deadline=None)
@given(total=totals, data=st.data())
def test_counts_take_so_many_from_either_end(total: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, total))
    assert chosen(f"first:{count}", total) == list(range(total))[:count]
    assert chosen(f"end:{count}", total) == list(range(total))[-count:]
    assert chosen(f"random:{count}", total) == chosen("random", total)[:count]


@settings(deadline=None)
@given(total=totals, one=percents, two=percents)
def test_ranges_take_what_lies_between_two_marks(total: int, one: Fraction, two: Fraction) -> None:
    low, high = sorted((one, two))
    everything = list(range(total))
    ranges = {
        f"first:{float(low)}%-first:{float(high)}%": everything[part(low, total) : part(high, total)],
        f"end:{float(high)}%-end:{float(low)}%": everything[total - part(high, total) : total - part(low, total)],
        f"first:{float(low)}%-end:{float(two)}%": everything[part(low, total) : max(0, total - part(two, total))],
    }
    for text, expected in ranges.items():
        if expected:
            assert chosen(text, total) == expected
        else:
            with pytest.raises(ConfigError, match="nothing or leaves the file"):
                chosen(text, total)


@settings(deadline=None)
@given(total=totals, marks=st.lists(st.integers(1, 99), min_size=1, max_size=6, unique=True))
def test_ranges_that_share_their_marks_take_every_record_once(total: int, marks: list[int]) -> None:
    ends = [0, *sorted(marks), 100]
    taken: list[int] = []
    for low, high in pairwise(ends):
        if part(Fraction(low), total) < part(Fraction(high), total):
            taken += chosen(f"first:{low}%-first:{high}%", total)
    assert taken == list(range(total))


def test_random_belongs_to_its_address_and_is_no_sorted_prefix() -> None:
    assert chosen("random:50", 100) == chosen("RANDOM : 50", 100) != chosen("random:50", 100, "another address")
    assert sorted(chosen("random", 100)) == list(range(100)) != chosen("random", 100)
    assert chosen("all", 4) == [0, 1, 2, 3]


BAD = [
    "first",
    "first:",
    "first:x",
    "last:10",
    "first:10%-",
    "first:10%-first:20%-first:30%",
    "random:5-first:9",
    "10%",
    "",
    None,
    3,
    "first:-5",
    "end:1e3",
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_strategy_is_an_error_and_never_all(text: object) -> None:
    with pytest.raises(ConfigError, match=r"mix.yaml, entry 2: .*not a sampling strategy.*write all, first:N|mix.yaml.*Write all"):
        parse_sampling(text, "mix.yaml, entry 2")


@pytest.mark.parametrize(
    ("text", "total", "says"),
    [
        ("end:0", 10, "takes no records"),
        ("first:0%", 10, "takes no records"),
        ("random:0", 10, "takes no records"),
        ("first:101%", 10, "more than 100%"),
        ("first:11", 10, "asks for 11 of 10 records"),
        ("first:20%-first:10%", 10, "from record 2 to before record 1 of 10"),
        ("first:60%-end:60%", 10, "from record 6 to before record 4 of 10"),
    ],
)
def test_a_strategy_that_takes_nothing_or_too_much_is_an_error(text: str, total: int, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        chosen(text, total)


@settings(deadline=None)
@given(text=st.sampled_from(["all", "first:10", "end:2.5%", "random", "random:7", "first:10%-end:10%", "end:20-end:10"]))
def test_the_text_of_a_strategy_reads_back_as_itself(text: str) -> None:
    sampling = parse_sampling(text, "x")
    assert parse_sampling(str(sampling), "x") == sampling


NUMBERS = {
    "seventeen": "17",
    "There are fourteen of them.": "14",
    "2.5": "2.5",
    "About 2.50 metres.": "2.5",
    "There are 3.": "3",
    "someone saw 4": "4",
    "1,234 birds": "1234",
    "-3 or −4": "-3",
    "twenty-one": "21",
    "one hundred and five, not six": "105",
    "two million three hundred thousand and forty": "2300040",
    "two three": "2",
    "in B12, 7": "7",
    "the 3rd of 5": "5",
    "ten thousand": "10000",
    "a hundred and someone": "100",
}


@pytest.mark.parametrize(("text", "value"), NUMBERS.items())
def test_the_first_number_is_read_in_digits_or_words(text: str, value: str) -> None:
    assert first_number(text) == first_number(value) is not None
    assert number_match(text, value) == 1.0


@pytest.mark.parametrize("text", ["", "none", "someone", "B12", "weighty", "often"])
def test_where_there_is_no_number_nothing_is_right(text: str) -> None:
    assert first_number(text) is None
    assert number_match(text, "1") == number_match("1", text) == 0.0


@settings(deadline=None)
@given(st.integers(0, 999_999))
def test_written_numbers_read_back(value: int) -> None:
    assert first_number(f"There are {value:,} of them.") == first_number(spelled(value)) == value


def spelled(value: int) -> str:
    """A number below a million in English."""
    ones = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
    )
    tens = "_ _ twenty thirty forty fifty sixty seventy eighty ninety"
    if value < 20:
        return ones.split()[value]
    if value < 100:
        return tens.split()[value // 10] + (f"-{spelled(value % 10)}" if value % 10 else "")
    if value < 1000:
        return f"{spelled(value // 100)} hundred" + (f" and {spelled(value % 100)}" if value % 100 else "")
    return f"{spelled(value // 1000)} thousand" + (f" {spelled(value % 1000)}" if value % 1000 else "")


def test_contains_wants_whole_words() -> None:
    assert contains("It is a Black  Cat, I think.", "black cat") == 1.0
    assert contains("concatenate", "cat") == contains("a dog", "cat") == contains("a dog", " ") == 0.0
    assert SCORINGS["exact_match"]("Cat ", "cat") == 1.0
