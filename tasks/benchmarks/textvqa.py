"""TextVQA: questions about photos that need their text to be read, each answered by ten annotators (arXiv 1904.08920).

Read from data/{train,validation}-*.parquet of lmms-lab/textvqa (image, image_id, question_id, question, answers), or from
TextVQA_0.5.1_{train,val}.json of textvqa.org with train_images/<image_id>.jpg, which holds the images of both. The published test answers
are secret, so results are reported on the published validation split: it is TEST here, and VALIDATION is held back from the training
pictures. The answer to learn is the one that most annotators gave. Score: soft accuracy over the ten (`scoring/soft_accuracy.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.questions import Asked
from tasks.benchmarks.raw import Raw
from tasks.benchmarks.rows import Row
from tasks.benchmarks.scoring.soft_accuracy import most_given, soft_accuracy
from tasks.task import Example, Split

INSTRUCTION = "Answer the question using a single word or phrase."
ANNOTATORS = 10
NAMES = {Split.TRAIN: ("train", "train"), Split.TEST: ("validation", "val")}
"""Split -> how the hub and the site call it."""


@dataclass(frozen=True)
class TextVqa:
    """Reading text in photos."""

    name: ClassVar[str] = "textvqa"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "lmms-lab/textvqa"
    max_new_tokens: ClassVar[int] = 32
    macro: ClassVar[bool] = False

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        return {
            split: (f"data/{hub}-*.parquet|TextVQA_0.5.1_{site}.json", f"data/{hub}-*.parquet|train_images/*")
            for split, (hub, site) in NAMES.items()
        }

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        rows = raw.rows(self.files[split][:1], ("image_id", "question_id", "question", "answers"))
        return Asked(rows, _question)

    def score(self, response: str, example: Example) -> float:
        return soft_accuracy(response, example.references)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}


def _question(number: int, row: Row) -> Question:
    picture, answers = str(row["image_id"]), row.listed("answers")
    if len(answers) != ANNOTATORS or not all(isinstance(answer, str) for answer in answers):
        raise row.wrong(f"answers holds {len(answers)} answers, not the texts of {ANNOTATORS} annotators")
    answer = most_given(answers)
    if not answer:
        raise row.wrong("answers holds no answer that is not empty")
    image: str | bytes = row.picture() if "image" in row else f"train_images/{picture}.jpg"
    return Question(str(row.whole("question_id")), f"{row.said('question')}\n{INSTRUCTION}", answer, (image,), picture, tuple(answers))
