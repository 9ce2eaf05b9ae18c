"""RealWorldQA: what can be seen in photographs, many from vehicles. Published by xAI, 2024.

Read from the hub's tables (lmms-lab/RealWorldQA or xai-org/RealworldQA): question (with its options and the request for a letter, a word
or a number inside), answer, image. 765 questions, test only. Score: a question with options by the chosen one (`scoring/choices.py`); any
other by the whole response, without case, without marks around words, and with a number in words as digits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import punctuation
from typing import ClassVar

from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.questions import Asked, picture_mark
from tasks.benchmarks.raw import Raw, Row
from tasks.benchmarks.scoring.choices import option_score, options_in
from tasks.files.scoring import UNITS
from tasks.task import Example, Split


@dataclass(frozen=True)
class RealWorldQa:
    """Photographs with options or a short answer."""

    name: ClassVar[str] = "realworldqa"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "lmms-lab/RealWorldQA"
    max_new_tokens: ClassVar[int] = 16
    macro: ClassVar[bool] = False

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        return {Split.TEST: ("data/test-*.parquet|test-*.parquet",)}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        return Asked(raw.rows(self.files[split], ("question", "answer", "image")), _question)

    def score(self, response: str, example: Example) -> float:
        if example.choices:
            return option_score(response, example.answer, example.choices, example.question)
        return float(plain(response) == plain(example.answer))

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}


def plain(text: str) -> str:
    """The words of a text as they are compared: lower case, no marks around them, a number word (zero to twenty, thirty, ...) as digits."""
    words = [word.strip(punctuation) for word in text.lower().split()]
    return " ".join(str(UNITS[word]) if word in UNITS else word for word in words if word)


def _question(number: int, row: Row) -> Question:
    text, picture = row.said("question"), row.picture()
    answer = row.said("answer")
    letter = answer.strip(punctuation).upper()
    choices = tuple(options_in(text))
    if letter in choices:
        return Question(str(number), text, letter, (picture,), picture_mark(picture), choices=choices)
    return Question(str(number), text, answer, (picture,), picture_mark(picture))
