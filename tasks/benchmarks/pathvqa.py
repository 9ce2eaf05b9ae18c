"""PathVQA: questions about pathology images, half of them answered with yes or no (arXiv 2003.10286).

Read from data/{train,validation,test}-*.parquet of flaviagiammarino/path-vqa: image, question, answer. Score: F1 over words, which is plain
accuracy for answers of one word and gives part of the credit for part of a longer one. Measures (`scoring/bag_of_words.py`): exact_match,
the distinct words of the reference that the response holds over the number of its words, as LLaVA-Med's evaluation counts; f1; bleu1 to
bleu3; yes_no, whether the response says yes or no rightly, for questions with such an answer only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.questions import Asked, picture_mark
from tasks.benchmarks.raw import Raw
from tasks.benchmarks.rows import Row
from tasks.benchmarks.scoring.bag_of_words import bleu, f1, share_found, yes_or_no
from tasks.task import Example, Split

INSTRUCTION = "Answer the question using a single word or phrase."
CLOSED = ("yes", "no")


@dataclass(frozen=True)
class PathVqa:
    """Pathology questions."""

    name: ClassVar[str] = "pathvqa"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "flaviagiammarino/path-vqa"
    max_new_tokens: ClassVar[int] = 64
    macro: ClassVar[bool] = False

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        return {split: (f"data/{split}-*.parquet",) for split in Split}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        return Asked(raw.rows(self.files[split], ("image", "question", "answer")), _question)

    def score(self, response: str, example: Example) -> float:
        return f1(response, example.answer)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        answer = example.answer
        found = {"exact_match": share_found(response, answer), "f1": f1(response, answer)}
        found |= {f"bleu{order}": figure for order, figure in enumerate(bleu(response, answer, 3), start=1)}
        if answer.lower() in CLOSED:
            found["yes_no"] = float(yes_or_no(response) == answer.lower())
        return found


def _question(number: int, row: Row) -> Question:
    content = row.picture()
    return Question(str(number), f"{row.said('question')}\n{INSTRUCTION}", row.said("answer"), (content,), picture_mark(content))
