"""DocVQA: questions on pages of industry documents. Mathew et al., DocVQA, WACV 2021.

Read from the hub's tables (lmms-lab/DocVQA, folder DocVQA): questionId, question, answers (texts), image; or from the challenge's own
files (rrc.cvc.uab.es, task 1): train_v1.0_withQT.json and val_v1.0_withQT.json, an object whose `data` holds {questionId, question,
image, answers}, with the images in spdocvqa_images/ or documents/; its first release has them and the records (train_v1.0.json) in train/
and val/.

The answers of the published test split are secret, so the published validation split (5,349 questions) is the TEST here. Nothing is to be
chosen by it: VALIDATION is a tenth of the training pages. Score: ANLS (`scoring/anls.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.cells import answers, shown
from tasks.benchmarks.questions import Asked, picture_mark
from tasks.benchmarks.raw import Raw, Row
from tasks.benchmarks.scoring.anls import anls
from tasks.task import Example, Split

SHORT_ANSWER = "Answer the question using a single word or phrase."

IMAGES = "spdocvqa_images/*|documents/*|{part}/documents/*"
"""Where the images of a part, train or val, may lie."""


@dataclass(frozen=True)
class DocVqa:
    """Pages of documents with short answers."""

    name: ClassVar[str] = "docvqa"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "lmms-lab/DocVQA"
    max_new_tokens: ClassVar[int] = 32
    macro: ClassVar[bool] = False

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        return {Split.TRAIN: document_files("DocVQA", "train", "", IMAGES), Split.TEST: document_files("DocVQA", "val", "", IMAGES)}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        return document_questions(raw, self.files[split], "image")

    def score(self, response: str, example: Example) -> float:
        return anls(response, example.references)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}


def document_files(folder: str, part: str, prefix: str, images: str) -> tuple[str, ...]:
    """The pattern of a split's records, and of its images: the hub's tables hold both, beside the challenge's files lie the images."""
    table = f"{folder}/{'validation' if part == 'val' else part}-*.parquet"
    names = [f"{prefix}{part}_v1.0_withQT.json", f"{prefix}{part}_v1.0.json"]
    places = [f"{place}{name}" for place in ("", "*_qas/", f"{part}/") for name in names]
    return "|".join([table, *places]), "|".join([table, images.format(part=part)])


def document_questions(raw: Raw, patterns: Sequence[str], column: str) -> Sequence[Question]:
    """The questions of a split. `column` names a record's image in the challenge's files; in a table that column holds the image itself."""
    rows = raw.rows(patterns[:1], ("questionId", "question", "answers"))
    folders = [path.relative_to(raw.directory).parent.as_posix() for path in raw.matching(patterns[1])]
    held = tuple(dict.fromkeys(folders))

    def question(number: int, row: Row) -> Question:
        key, asked, right = shown(row, "questionId"), f"{row.said('question')}\n{SHORT_ANSWER}", answers(row, "answers")
        if rows.files[0].suffix == ".parquet":
            content = row.picture()
            return Question(key, asked, right[0], (content,), picture_mark(content), right)
        name = Path(row.said(column)).name
        return Question(key, asked, right[0], (_place(raw.directory, held, name),), name, right)

    return Asked(rows, question)


def _place(directory: Path, folders: Sequence[str], name: str) -> str:
    """Where the image called `name` lies, of the folders that hold images; in the first, where it is in none."""
    return next((f"{folder}/{name}" for folder in folders if (directory / folder / name).is_file()), f"{folders[0]}/{name}")
