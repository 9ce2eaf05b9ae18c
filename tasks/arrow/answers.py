"""Answers to questions as VQA counts them: in one spelling, by how many annotators gave them, and the vocabulary to choose among.

The spelling follows the published evaluation's steps (arXiv 1505.00468, section 3; visualqa.org/evaluation): lower case, no punctuation
inside or beside words, number words as digits, no articles, contractions with their apostrophe.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
"""A period that stands in no number."""
COMMA_IN_NUMBER = re.compile(r"\d,\d")

NUMBERS = {
    word: str(number) for number, word in enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"))
} | {"none": "0"}
ARTICLES = frozenset({"a", "an", "the"})
CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd've he's how'd how'll how's "
    "I'd've I'm I've isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't shan't "
    "she'd've she's should've shouldn't shouldn't've somebody'd somebody'll somebody's someone'd someone'll someone's something'd "
    "something'll that'd that's there'd there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't "
    "what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've "
    "wouldn't wouldn't've y'all you'd you'd've you'll you're you've"
).lower()
"""Contractions whose form without an apostrophe is no other word."""

SCORES = (0.0, 0.3, 0.6, 0.9)
"""The score of an answer that 0, 1, 2 or 3 annotators gave; more give 1."""


def _spellings(word: str) -> Iterable[str]:
    """The word without its apostrophes, and with all but one of them."""
    places = [place for place, character in enumerate(word) if character == "'"]
    yield word.replace("'", "")
    if len(places) > 1:
        yield from (word[:place] + word[place + 1 :] for place in places)


APOSTROPHES = {spelling: word for word in CONTRACTIONS.split() for spelling in _spellings(word)}


@lru_cache(maxsize=1 << 16)
def normalised(answer: str) -> str:
    """An answer in the one spelling by which answers are compared; one that is nothing but an article or a mark stays as it is."""
    text = answer.replace("\n", " ").replace("\t", " ").strip().lower()
    in_number = COMMA_IN_NUMBER.search(text) is not None
    result = text
    for mark in PUNCTUATION:
        beside = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if beside or in_number else " ")
    words = PERIOD.sub("", result).split()
    words = [NUMBERS.get(word, word) for word in words if word not in ARTICLES]
    return " ".join(APOSTROPHES.get(word, word) for word in words) or text


def score(annotators: int) -> float:
    """The score of an answer that so many annotators gave."""
    return SCORES[annotators] if annotators < len(SCORES) else 1.0


def vocabulary(majority: Counter[str], least: int) -> tuple[str, ...]:
    """The answers that are the majority's at least so often, sorted: the number of an answer is its place."""
    return tuple(sorted(answer for answer, count in majority.items() if answer and count >= least))


def targets(given: Sequence[str], numbers: Mapping[str, int]) -> tuple[list[str], list[int], list[float]]:
    """The answers that annotators gave with their scores, those of the vocabulary first, and the numbers of these.

    Among each, what more gave comes first, then by spelling.
    """
    counts = Counter(answer for answer in map(normalised, given) if answer)
    ranked = sorted(counts, key=lambda answer: (answer not in numbers, -counts[answer], answer))
    return ranked, [numbers[answer] for answer in ranked if answer in numbers], [score(counts[answer]) for answer in ranked]
