"""OCRBench: reading text in images, 1,000 questions of ten types. Liu et al., OCRBench, Science China Information Sciences 2024.

Read from the hub's table (echo840/OCRBench): question, answer (the texts that count as right), question_type, dataset, image. Test only.
Score: one of the right texts stands anywhere in the response, case aside. Handwritten mathematics (the questions from HME100k) is
compared without any space, and with its case, which means something there. Groups: the ten types; the benchmark's final score is 1,000
times the whole. Asked in a drawn order, for it is published type by type.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.cells import answers
from tasks.benchmarks.order import drawn_order
from tasks.benchmarks.questions import Asked, picture_mark
from tasks.benchmarks.raw import Raw, Row
from tasks.scoring import normalized
from tasks.task import Example, Split

FORMULA = "Handwritten Mathematical Expression Recognition"
"""The type of all questions from HME100k, and of no other."""


@dataclass(frozen=True)
class OcrBench:
    """Text in images, of ten types."""

    name: ClassVar[str] = "ocrbench"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "echo840/OCRBench"
    max_new_tokens: ClassVar[int] = 64
    macro: ClassVar[bool] = False

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        return {Split.TEST: ("data/test-*.parquet|test-*.parquet",)}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        rows = raw.rows(self.files[split], ("question", "answer", "question_type", "dataset", "image"))
        return Asked(rows, _question, drawn_order(self.name, len(rows)))

    def score(self, response: str, example: Example) -> float:
        return contains_one(response, example.references or (example.answer,), example.group == FORMULA)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}


def contains_one(response: str, references: Sequence[str], formula: bool = False) -> float:
    """1.0 where one of the references stands in the response, case aside; of a formula spaces aside instead. A word may be part of
    another.
    """

    def plain(text: str) -> str:
        return "".join(text.split()) if formula else normalized(text)

    said = plain(response)
    return float(any(plain(reference) in said for reference in references if plain(reference)))


def _question(number: int, row: Row) -> Question:
    picture, right, kind = row.picture(), answers(row, "answer"), row.said("question_type")
    if (row.said("dataset") == "HME100k") != (kind == FORMULA):
        raise row.wrong(f"is of type {kind!r} and from {row['dataset']}; {FORMULA!r} and HME100k go together")
    return Question(str(number), row.said("question"), right[0], (picture,), picture_mark(picture), right, kind)
