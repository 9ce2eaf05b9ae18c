"""CountBenchQA: how many of something are in a picture? Up to ten (arXiv 2302.12066, questions from arXiv 2407.07726).

Read from data/test-*.parquet of vikhyatk/CountBenchQA: image, question, number. It has no training split. Score: the first number of the
response is the number (`scoring/numbers.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.questions import Asked, picture_mark
from tasks.benchmarks.raw import Raw
from tasks.benchmarks.rows import Row
from tasks.benchmarks.scoring.numbers import number_equals
from tasks.task import Example, Split

INSTRUCTION = "Answer with an integer only."


@dataclass(frozen=True)
class CountBench:
    """Counting, for test only."""

    name: ClassVar[str] = "countbench"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "vikhyatk/CountBenchQA"
    max_new_tokens: ClassVar[int] = 16
    macro: ClassVar[bool] = False

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        return {Split.TEST: ("data/test-*.parquet",)}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        return Asked(raw.rows(self.files[split], ("image", "question", "number")), _question)

    def score(self, response: str, example: Example) -> float:
        return number_equals(response, example.answer)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}


def _question(number: int, row: Row) -> Question:
    content = row.picture()
    return Question(str(number), f"{row.said('question')}\n{INSTRUCTION}", str(row.whole("number")), (content,), picture_mark(content))
