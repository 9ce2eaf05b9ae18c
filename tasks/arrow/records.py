"""The records of one split of an Arrow set: rows, or the questions and sentences in their rows, made one by one when asked for."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, overload

from foundation.errors import InputError
from tasks.arrow.reading import ArrowRows, open_rows, picture
from tasks.files.sources import place
from tasks.pairs.records import Captioned, Compared, Kind, Labelled, Questioned, Record
from tasks.task import Split


@dataclass(frozen=True)
class ArrowFile:
    """One file of a set. `name` stands in the keys of its records and differs within a split."""

    name: str
    digest: str
    path: str = place()


@dataclass(frozen=True)
class Place:
    """Where a record lies: row of a file, and the place in the row's lists."""

    file: ArrowFile
    split: Split
    row: int
    item: int = 0


COLUMNS = {
    Kind.CAPTIONS: ("image", "caption", "image_id"),
    Kind.QUESTIONS: ("image", "questions", "answers", "answer_labels", "answer_scores", "image_id", "question_id"),
    Kind.COMPARISONS: ("image_0", "image_1", "questions", "answers", "identifier"),
    Kind.LABELS: ("image", "label"),
}
"""The columns that a file of each kind must have."""

HELD = {"image": "binary", "image_0": "binary", "image_1": "binary", "caption": "string", "questions": "string"}
"""What a column holds, or its lists: a word in the name of its Arrow type."""

IN_ROWS = {Kind.QUESTIONS: "questions", Kind.COMPARISONS: "questions"}
"""The list column whose entries are records of their own."""

TRUTH = {"True": True, "False": False}


class ArrowRecords(Sequence[Record]):
    """The first `count` records of files, in order. Holds no open file, so it can be sent to another process."""

    def __init__(self, kind: Kind, split: Split, files: Sequence[ArrowFile], count: int | None) -> None:
        self.kind, self.split, self.files = kind, split, tuple(files)
        self.ends = list(accumulate(self._size(open_rows(file.path)) for file in files))
        whole = self.ends[-1] if self.ends else 0
        self.size = whole if count is None else min(count, whole)

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        """One record; its images are decoded when they are asked for."""
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(f"record {index} of {self.size}")
        index %= self.size
        number = bisect_right(self.ends, index)
        file, index = self.files[number], index - (self.ends[number - 1] if number else 0)
        rows = open_rows(file.path)
        return MAKERS[self.kind](rows, self._place(rows, file, index))

    def _size(self, rows: ArrowRows) -> int:
        column = IN_ROWS.get(self.kind)
        if column is None:
            return len(rows)
        ends = rows.items(column)
        return int(ends[-1]) if len(ends) else 0

    def _place(self, rows: ArrowRows, file: ArrowFile, index: int) -> Place:
        column = IN_ROWS.get(self.kind)
        if column is None:
            return Place(file, self.split, index)
        ends = rows.items(column)
        row = int(ends.searchsorted(index, side="right"))
        return Place(file, self.split, row, index - (int(ends[row - 1]) if row else 0))


def captioned(rows: ArrowRows, at: Place) -> Captioned:
    """An image with its captions, each once, in the order of the data."""
    held = rows.texts(at.row, ("caption", "image_id"))
    captions = tuple(dict.fromkeys(each for each in _list(held["caption"]) if each))
    if not captions:
        raise InputError(f"{at.file.path}, row {at.row}: has no caption; convert the data set again")
    return Captioned(f"{at.file.name}/{at.row}/{held['image_id']}", partial(picture, at.file.path, at.row, "image"), captions)


def questioned(rows: ArrowRows, at: Place) -> Questioned:
    """One question. Learning sees the answers of the vocabulary alone; validation and test see all that annotators gave."""
    held = rows.texts(at.row, ("questions", "answers", "answer_labels", "answer_scores", "question_id"))
    number = held["question_id"][at.item]
    answers, labels, scores = (_entry(held[name], at.item) for name in ("answers", "answer_labels", "answer_scores"))
    pairs = list(zip(answers, scores, strict=True))
    known = pairs[: len(labels)] if at.split is Split.TRAIN else pairs
    image = partial(picture, at.file.path, at.row, "image")
    return Questioned(f"{at.file.name}/{at.row}/{number}", image, held["questions"][at.item], dict(known), number)


def compared(rows: ArrowRows, at: Place) -> Compared:
    """One sentence about two images."""
    held = rows.texts(at.row, ("questions", "answers", "identifier"))
    answer = held["answers"][at.item]
    if answer not in TRUTH:
        raise InputError(f"{at.file.path}, row {at.row}: the answer is {answer!r}, not True or False; convert the data set again")
    images = partial(picture, at.file.path, at.row, "image_0"), partial(picture, at.file.path, at.row, "image_1")
    return Compared(f"{at.file.name}/{at.row}/{held['identifier']}-{at.item}", images, held["questions"][at.item], TRUTH[answer])


def labelled(rows: ArrowRows, at: Place) -> Labelled:
    """An image and its class."""
    label = rows.texts(at.row, ("label",))["label"]
    return Labelled(f"{at.file.name}/{at.row}", partial(picture, at.file.path, at.row, "image"), str(label))


MAKERS: dict[Kind, Callable[[ArrowRows, Place], Record]] = {
    Kind.CAPTIONS: captioned,
    Kind.QUESTIONS: questioned,
    Kind.COMPARISONS: compared,
    Kind.LABELS: labelled,
}


def _entry(lists: list[Any] | None, item: int) -> list[Any]:
    """One of a row's lists; an empty one where the column holds none, as where answers are secret."""
    return (lists[item] or []) if lists and item < len(lists) else []


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else value or []
