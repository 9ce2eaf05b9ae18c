"""ScienceQA, the questions with an image: school science with two to five options. Lu et al., Learn to Explain, NeurIPS 2022.

Read from the hub's tables (lmms-lab/ScienceQA, folder ScienceQA-IMG): question, choices (texts), answer (the number of the right one, from
0), hint (may be empty), subject, image. The published splits are kept: 6,218, 2,097 and 2,017 questions. They were drawn by question, so a
picture may stand in several; where all lie in one directory, the option max_shared_pictures says how many are allowed. What explains the
answer (lecture, solution) is not shown. Score: the chosen option is the right one (`scoring/choices.py`). Groups: the three subjects.
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

COLUMNS = ("image", "question", "choices", "answer", "hint", "subject")


@dataclass(frozen=True)
class ScienceQa:
    """School science with an image."""

    name: ClassVar[str] = "scienceqa"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "lmms-lab/ScienceQA"
    max_new_tokens: ClassVar[int] = 16
    macro: ClassVar[bool] = False

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        return {split: (f"ScienceQA-IMG/{split}-*.parquet|{split}-*.parquet",) for split in Split}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        return Asked(raw.rows(self.files[split], COLUMNS), _question)

    def score(self, response: str, example: Example) -> float:
        return option_score(response, example.answer, example.choices, example.question)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}


def _question(number: int, row: Row) -> Question:
    options = texts(row, "choices")
    answer, picture = option_letter(row, "answer", options), row.picture()
    hint = (row["hint"] or "").strip()
    text = lettered(f"Context: {hint}\n{row.said('question')}" if hint else row.said("question"), options)
    return Question(str(number), text, answer, (picture,), picture_mark(picture), group=row.said("subject"), choices=letters(len(options)))
