"""ChartQA: questions on charts, written by people and generated from summaries. Masry et al., ChartQA, Findings of ACL 2022.

Read from the hub's tables, lmms-lab/ChartQA (type: human_test or augmented_test, question, answer, image; test only) or
HuggingFaceM4/ChartQA (human_or_machine: 0 or 1, query, label, image; all splits); or from the authors' "ChartQA Dataset": train/, val/
and test/, each with <split>_human.json and <split>_augmented.json, lists of {imgname, query, label}, and the images in png/.

2,500 test questions, half of them written by people. Score: relaxed accuracy (`scoring/relaxed.py`). Groups: human, augmented. Validation
and test are asked in a drawn order, for each group is published as a block.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.docvqa import SHORT_ANSWER
from tasks.benchmarks.order import drawn_order
from tasks.benchmarks.questions import Asked, picture_mark
from tasks.benchmarks.raw import Raw, Row
from tasks.benchmarks.scoring.relaxed import relaxed_accuracy
from tasks.task import Example, Split

GROUPS = ("human", "augmented")
KINDS = {"human_test": "human", "augmented_test": "augmented"}
PARTS = {Split.TRAIN: "train", Split.VALIDATION: "val", Split.TEST: "test"}


@dataclass(frozen=True)
class ChartQa:
    """Charts with short answers."""

    name: ClassVar[str] = "chartqa"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "lmms-lab/ChartQA"
    max_new_tokens: ClassVar[int] = 16
    macro: ClassVar[bool] = False

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        return {split: tuple(map(_pattern, _names(part))) for split, part in PARTS.items()}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        rows = raw.rows(self.files[split][: len(GROUPS)])

        def question(number: int, row: Row) -> Question:
            file = rows.files[bisect_right(rows.ends, number)]
            if file.suffix == ".parquet":
                content = row.picture()
                return _question(number, row, _group(row), content, picture_mark(content))
            folder, name = file.relative_to(raw.directory).parent.as_posix(), row.said("imgname")
            return _question(number, row, GROUPS["augmented" in file.name], f"{folder}/png/{name}", name)

        return Asked(rows, question, None if split is Split.TRAIN else drawn_order(self.name, len(rows)))

    def score(self, response: str, example: Example) -> float:
        return relaxed_accuracy(response, example.answer)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}


def _names(part: str) -> tuple[str, ...]:
    """The files of one split as the authors publish them, each below a folder of its split; the hub's table holds them all."""
    return tuple(f"data/{part}-*.parquet|{part}/{name}" for name in (f"{part}_human.json", f"{part}_augmented.json", "png/*"))


def _pattern(names: str) -> str:
    """The spellings of a file, and those of the authors' archive as it unpacks."""
    table, own = names.split("|")
    return f"{table}|{own}|ChartQA Dataset/{own}"


def _question(number: int, row: Row, group: str, image: str | bytes, picture: str) -> Question:
    asked = row.said("query" if "query" in row else "question")
    label = row["label" if "label" in row else "answer"]
    answers = label if isinstance(label, list) else [label]
    if len(answers) != 1 or not isinstance(answers[0], str) or not answers[0].strip():
        raise row.wrong(f"the answer is {label!r}, not one text")
    return Question(str(number), f"{asked}\n{SHORT_ANSWER}", answers[0].strip(), (image,), picture, group=group)


def _group(row: Row) -> str:
    """The group of a row of a hub's table."""
    kind = row["human_or_machine"] if "human_or_machine" in row else row["type"]
    group = GROUPS[kind] if kind in (0, 1) else KINDS.get(str(kind))
    if group is None:
        raise row.wrong(f"is of type {kind!r}; it is one of {', '.join(KINDS)}")
    return group
