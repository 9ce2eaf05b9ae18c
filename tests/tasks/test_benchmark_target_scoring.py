"""Scores of the target benchmarks against tables worked by hand from the benchmarks' own rules."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.benchmarks.countbench import CountBench
from tasks.benchmarks.cub200 import Cub200
from tasks.benchmarks.pathvqa import PathVqa
from tasks.benchmarks.pixmocount import PixmoCount
from tasks.benchmarks.scoring.bag_of_words import bleu, f1, share_found, words, yes_or_no
from tasks.benchmarks.scoring.clocks import apart, read_time
from tasks.benchmarks.scoring.letters import chosen_letter
from tasks.benchmarks.scoring.soft_accuracy import most_given, soft_accuracy, spelled
from tasks.benchmarks.textvqa import TextVqa
from tasks.benchmarks.timeclock import TimeClock
from tasks.task import Example

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def example(answer: str, references: tuple[str, ...] = ()) -> Example:
    return Example("key", (), "question", answer, references=references)


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("A", "A"),
        ("a", "A"),
        ("A.", "A"),
        (" (A) ", "A"),
        ("(a)", "A"),
        ("**A**", "A"),
        ("\\boxed{C}", "C"),
        ("A. Laysan Albatross", "A"),
        ("b. Gadwall", "B"),
        ("b) a gadwall", "B"),
        ("A: a gull", "A"),
        ("A\nLaysan Albatross", "A"),
        ("The answer is A", "A"),
        ("The answer is A because of its beak.", "A"),
        ("The answer is (a).", "A"),
        ("Answer: q", "Q"),
        ("The correct option is K, a Warbler.", "K"),
        ("I think it is option B", "B"),
        ("It is B because of a beak", "B"),
        ("I", "I"),
        ("I. Gadwall", "I"),
        ("A bird", None),
        ("a bird with a beak", None),
        ("A bird of kind C", "C"),
        ("The answer is a bird", None),
        ("This is a Warbler.", None),
        ("I see a Warbler, D", "D"),
        ("I'm sure it isn't that bird's nest", None),
        ("In the U.S. this is F.", "F"),
        ("An X-ray of a gull", None),
        ("Black footed Albatross", None),
        ("", None),
        ("7", None),
    ],
)
def test_the_letter_that_answers(response: str, letter: str | None) -> None:
    assert chosen_letter(response) == letter
    right = Example("key", (), "question", letter or "A", choices=LETTERS)
    assert Cub200().score(response, right) == float(letter is not None)


def test_letters_that_are_no_choice_do_not_answer() -> None:
    assert chosen_letter("Z or B", "ABCD") == "B"


@given(
    st.sampled_from(LETTERS), st.sampled_from(["{}", "{}.", "({})", "The answer is {}.", "**{}**", "Answer: {}", "{}) a bird", "Option {}"])
)
def test_every_letter_is_found_in_every_usual_form(letter: str, form: str) -> None:
    assert chosen_letter(form.format(letter)) == letter


@pytest.mark.parametrize(
    ("response", "answer", "score"),
    [
        ("17", "17", 1),
        ("seventeen", "17", 1),
        ("seventeen", "7", 0),
        ("Seventeen.", "17", 1),
        ("fourteen", "14", 1),
        ("fourteen", "4", 0),
        ("There are 17 dogs in this image.", "17", 1),
        ("There are 3 of the 5 birds.", "3", 1),
        ("someone", "1", 0),
        ("None of them", "1", 0),
        ("2.5", "25", 0),
        ("2.5", "2", 0),
        ("2.", "2", 1),
        ("2.0", "2", 1),
        ("1,234", "1234", 1),
        ("twenty-one", "21", 1),
        ("one hundred and five", "105", 1),
        ("zero", "0", 1),
        ("-3", "3", 0),
        ("the 2nd", "2", 0),
        ("many", "3", 0),
        ("", "0", 0),
    ],
)
def test_counts(response: str, answer: str, score: float) -> None:
    for benchmark in (PixmoCount(), CountBench()):
        assert benchmark.score(response, example(answer)) == score
        assert benchmark.measures(response, example(answer)) == {}
    assert PixmoCount().score(response, example(f"There are {answer} dogs in this image.")) == score


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("3:05", "03:05"),
        ("03:05", "03:05"),
        ("The clock shows 10:10.", "10:10"),
        ("3:59 PM", "15:59"),
        ("12:30 a.m.", "00:30"),
        ("12:30 pm", "12:30"),
        ("It is 5 o'clock", "05:00"),
        ("five o’clock", "05:00"),
        ("07:45:30", "07:45"),
        ("3: 05", "03:05"),
        ("3:5", None),
        ("24:00", None),
        ("3:75", None),
        ("13:00 pm", None),
        ("0305", None),
        ("half past three", None),
        ("1234:56", None),
        ("", None),
    ],
)
def test_times_are_read(text: str, time: str | None) -> None:
    found = read_time(text)
    assert (str(found) if found else None) == time


@pytest.mark.parametrize(
    ("response", "answer", "hours", "hour", "minute", "both"),
    [
        ("03:59", "04:00", 12, 1, 1, 1),
        ("04:00", "03:59", 12, 1, 1, 1),
        ("04:01", "04:00", 12, 1, 1, 1),
        ("04:02", "04:00", 12, 1, 0, 0),
        ("12:30", "00:30", 12, 1, 1, 1),
        ("12:30", "00:30", 24, 0, 1, 0),
        ("15:10", "03:10", 12, 1, 1, 1),
        ("15:10", "03:10", 24, 0, 1, 0),
        ("3:10 pm", "15:10", 24, 1, 1, 1),
        ("11:59", "12:00", 12, 1, 1, 1),
        ("23:59", "00:00", 24, 1, 1, 1),
        ("11:59", "00:00", 24, 0, 1, 0),
        ("03:00", "03:59", 12, 1, 1, 0),
        ("05:10", "04:10", 12, 0, 1, 0),
        ("04:40", "04:10", 12, 1, 0, 0),
        ("no clock", "04:10", 12, 0, 0, 0),
        ("25:10", "01:10", 12, 0, 0, 0),
    ],
)
def test_clocks(response: str, answer: str, hours: int, hour: float, minute: float, both: float) -> None:
    clock = TimeClock(hours)
    assert clock.measures(response, example(answer)) == {"hour": hour, "minute": minute, "both": both}
    assert clock.score(response, example(answer)) == both


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 23), st.integers(0, 59), st.sampled_from([12, 24]))
def test_apart_is_a_distance_around_the_dial(hour: int, minute: int, other_hour: int, other_minute: int, hours: int) -> None:
    one, other = read_time(f"{hour}:{minute:02d}"), read_time(f"{other_hour}:{other_minute:02d}")
    assert one is not None
    assert other is not None
    assert apart(one, other, hours) == apart(other, one, hours) <= hours * 30
    told = TimeClock(hours).measures(str(one), example(str(other)))
    assert told["both"] <= min(told["hour"], told["minute"])
    assert (apart(one, other, hours) == 0) == (minute == other_minute and (hour - other_hour) % hours == 0)


AGREEING = (0.0, 0.3, 0.6, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""Soft accuracy where 0 to 10 of ten annotators gave the answer. For 2: the two are each matched by 1 of the other nine (1/3), the eight
by 2 (2/3): (2 * 1/3 + 8 * 2/3) / 10 = 0.6."""


@pytest.mark.parametrize("agreeing", range(11))
def test_soft_accuracy(agreeing: int) -> None:
    answers = ("nokia",) * agreeing + tuple(f"other {place}" for place in range(10 - agreeing))
    # the thirds are added up in floating point
    assert soft_accuracy("Nokia.", answers) == pytest.approx(AGREEING[agreeing], abs=1e-12)
    assert TextVqa().score("Nokia.", example("nokia", answers)) == soft_accuracy("nokia", answers)
    assert soft_accuracy("", answers) == 0.0


@given(st.lists(st.sampled_from(["a b", "two", "2", "red"]), min_size=1, max_size=12), st.sampled_from(["two", "red", "b"]))
def test_soft_accuracy_is_the_mean_over_annotators_left_out(answers: list[str], response: str) -> None:
    given_answer, scores = spelled(response), []
    for place in range(len(answers)):
        others = answers[:place] + answers[place + 1 :]
        scores.append(min(1.0, sum(spelled(other) == given_answer for other in others) / 3))
    assert soft_accuracy(response, answers) == pytest.approx(sum(scores) / len(scores), abs=1e-12)  # order of the sum


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The Dog", "dog"),
        ("two", "2"),
        ("None", "0"),
        ("dont", "don't"),
        ("yes.", "Yes"),
        ("3,000", "3000"),
        ("what?", "what"),
        ("so?what", "sowhat"),
        ("red,blue", "redblue"),
        ("mcdonald's", "mcdonald 's"),
        ("st. john", "st john"),
        ("coca-cola", "coca cola"),
        ("  a   nokia\n", "nokia"),
    ],
)
def test_spellings_that_are_the_same(one: str, other: str) -> None:
    assert spelled(one) == spelled(other)
    assert soft_accuracy(one, [other] * 10) == 1.0


@pytest.mark.parametrize(("one", "other"), [("2.5", "25"), ("someone", "some1"), ("ten", "tens"), ("cat", "cats"), ("eleven", "11")])
def test_spellings_that_differ(one: str, other: str) -> None:
    assert spelled(one) != spelled(other)


def test_the_answer_that_most_gave() -> None:
    assert most_given(["b", "a", "a", "b", "c"]) == "b"
    assert most_given(["x", " a ", "a", "", "", ""]) == "a"
    assert most_given(["", " "]) == ""


@pytest.mark.parametrize(
    ("response", "reference", "exact", "harmonic", "bleu1", "bleu2", "bleu3"),
    [
        ("yes", "yes", 1, 1, 1, 0, 0),
        ("Yes.", "yes", 1, 1, 1, 0, 0),
        ("no", "yes", 0, 0, 0, 0, 0),
        # 1 of the response's 4 words; 2 * 1 / (4 + 1)
        ("yes it is there", "yes", 1 / 4, 2 / 5, 1 / 4, 0, 0),
        # one word of two: wholly found, F1 2 * 1 / (1 + 2); brevity exp(1 - 2/1)
        ("inflammation", "granulomatous inflammation", 1, 2 / 3, math.exp(-1), 0, 0),
        ("granulomatous inflammation", "granulomatous inflammation", 1, 1, 1, 1, 0),
        ("inflammation granulomatous", "granulomatous inflammation", 1, 1, 1, 0, 0),
        # the the the: one distinct word of the reference over three; clipped to the one that stands there
        ("the the the", "the liver", 1 / 3, 2 / 5, 1 / 3, 0, 0),
        # 3 of 4 words, 2 of 3 pairs, 1 of 2 triples
        ("cells of the liver", "of the liver", 3 / 4, 6 / 7, 3 / 4, (3 / 4 * 2 / 3) ** (1 / 2), (3 / 4 * 2 / 3 * 1 / 2) ** (1 / 3)),
        # 3 of 3, 2 of 2, 1 of 1, and short of six words: exp(1 - 6/3)
        ("a b c", "a b c d e f", 1, 2 / 3, math.exp(-1), math.exp(-1), math.exp(-1)),
        ("", "yes", 0, 0, 0, 0, 0),
    ],
)
def test_words(response: str, reference: str, exact: float, harmonic: float, bleu1: float, bleu2: float, bleu3: float) -> None:
    found = (share_found(response, reference), f1(response, reference), *bleu(response, reference, 3))
    assert found == pytest.approx((exact, harmonic, bleu1, bleu2, bleu3), abs=1e-12)  # logarithms there and back
    told = PathVqa().measures(response, example(reference))
    assert tuple(told[name] for name in ("exact_match", "f1", "bleu1", "bleu2", "bleu3")) == found
    assert PathVqa().score(response, example(reference)) == found[1]


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), min_size=1, max_size=8))
def test_bleu_is_the_published_formula(given_words: list[str], wanted: list[str]) -> None:
    expected = []
    for order in (1, 2, 3):
        precisions = []
        for length in range(1, order + 1):
            ours, theirs = (
                Counter(tuple(of[start : start + length]) for start in range(len(of) - length + 1)) for of in (given_words, wanted)
            )
            precisions.append((ours & theirs).total() / max(1, ours.total()))
        brevity = 1.0 if len(given_words) > len(wanted) else math.exp(1 - len(wanted) / max(1, len(given_words)))
        expected.append(brevity * math.prod(precisions) ** (1 / order))
    # a root of a product, not the exponential of a mean of logarithms
    assert bleu(" ".join(given_words), " ".join(wanted), 3) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("response", "answer", "right"), [("Yes, there is.", "yes", 1.0), ("no", "yes", 0.0), ("nothing", "no", 0.0), ("I say NO", "no", 1.0)]
)
def test_yes_or_no(response: str, answer: str, right: float) -> None:
    assert PathVqa().measures(response, example(answer))["yes_no"] == right
    assert "yes_no" not in PathVqa().measures(response, example("the liver"))
    assert yes_or_no("not known") is None


def test_what_a_word_is() -> None:
    assert words("X-ray of the T2.5 bird's liver, (left)!") == ("x-ray", "of", "the", "t2.5", "bird's", "liver", "left")


@given(st.text("ab .", max_size=12), st.text("ab .", max_size=12))
def test_all_figures_lie_between_nothing_and_one(response: str, reference: str) -> None:
    figures = [share_found(response, reference), f1(response, reference), *bleu(response, reference, 3)]
    assert all(0 <= figure <= 1 for figure in figures)
    if words(response) == words(reference) and words(response):
        assert f1(response, reference) == 1
