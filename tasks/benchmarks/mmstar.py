"""MMStar: 1,500 questions that need their image, in six balanced categories. Chen et al., Are We on the Right Way, NeurIPS 2024.

Read from the hub's table (Lin-Chen/MMStar, mmstar.parquet): index, question (its options inside: "Options: A: ..., B: ..."), answer (a
letter), category, image. The one published split, called val, is the TEST here: nothing is to be chosen by it. Score: the chosen option
is the right one (`scoring/choices.py`); the whole is the mean of the six categories. Asked in a drawn order, for it is published category
by category.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.cells import shown
from tasks.benchmarks.order import drawn_order
from tasks.benchmarks.questions import Asked, picture_mark
from tasks.benchmarks.raw import Raw, Row
from tasks.benchmarks.scoring.choices import LETTER_ONLY, answer_letter, option_score, shown_letters
from tasks.task import Example, Split


@dataclass(frozen=True)
class MmStar:
    """Questions that need their image, in six categories."""

    name: ClassVar[str] = "mmstar"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "Lin-Chen/MMStar"
    max_new_tokens: ClassVar[int] = 32
    macro: ClassVar[bool] = True

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        return {Split.TEST: ("mmstar.parquet|data/val-*.parquet",)}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        rows = raw.rows(self.files[split], ("index", "question", "answer", "category", "image"))
        return Asked(rows, _question, drawn_order(self.name, len(rows)))

    def score(self, response: str, example: Example) -> float:
        return option_score(response, example.answer, example.choices, example.question)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}


def _question(number: int, row: Row) -> Question:
    asked, picture = row.said("question"), row.picture()
    choices = shown_letters(asked, row.said("answer"))
    answer = answer_letter(row, "answer", choices)
    text = f"{asked}\n{LETTER_ONLY}"
    return Question(shown(row, "index"), text, answer, (picture,), picture_mark(picture), group=row.said("category"), choices=choices)
