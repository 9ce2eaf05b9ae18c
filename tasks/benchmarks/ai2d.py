"""AI2D: questions on diagrams of primary-school science, four options each. Kembhavi et al., A Diagram Is Worth A Dozen Images, 2016.

Read from the hub's tables (lmms-lab/ai2d): question, options (texts), answer (the number of the right option, from 0, as text), image.
3,088 questions, test only. Score: the chosen option is the right one (`scoring/choices.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.cells import texts
from tasks.benchmarks.questions import Asked, picture_mark
from tasks.benchmarks.raw import Raw, Row
from tasks.benchmarks.scoring.choices import lettered, letters, option_letter, option_score
from tasks.task import Example, Split


@dataclass(frozen=True)
class Ai2d:
    """Diagrams with four options."""

    name: ClassVar[str] = "ai2d"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "lmms-lab/ai2d"
    max_new_tokens: ClassVar[int] = 16
    macro: ClassVar[bool] = False

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        return {Split.TEST: ("data/test-*.parquet|test-*.parquet",)}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        return Asked(raw.rows(self.files[split], ("question", "options", "answer", "image")), _question)

    def score(self, response: str, example: Example) -> float:
        return option_score(response, example.answer, example.choices, example.question)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}


def _question(number: int, row: Row) -> Question:
    options = texts(row, "options")
    answer, picture = option_letter(row, "answer", options), row.picture()
    text = lettered(row.said("question"), options)
    return Question(str(number), text, answer, (picture,), picture_mark(picture), choices=letters(len(options)))
