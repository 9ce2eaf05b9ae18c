"""The questions of one split of a benchmark, and which of them the split takes: where a benchmark has training files but no validation
files, the pictures whose digest ends in 0 are VALIDATION and the other nine tenths TRAIN.

The choice goes by picture, so all that is asked about a picture stays in one split, and by that picture alone, so it is the same however
the files are ordered and whatever else they hold.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import islice
from typing import TypeVar, overload

from tasks.benchmarks.benchmark import Benchmark, Question
from tasks.benchmarks.raw import Raw
from tasks.task import Split

PARTS = 10
"""One in so many training pictures is held back."""

Row = TypeVar("Row")


class Asked(Sequence[Question]):
    """Questions made of rows, each when it is asked for: `make(number, row)`. `numbers`: the rows that are asked about (None: all)."""

    def __init__(self, rows: Sequence[Row], make: Callable[[int, Row], Question], numbers: Sequence[int] | None = None) -> None:
        self.rows, self.make = rows, make
        self.numbers: Sequence[int] = range(len(rows)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> list[Question]: ...
    def __getitem__(self, index: int | slice) -> Question | list[Question]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        number = self.numbers[index]
        return self.make(number, self.rows[number])


def picture_mark(content: bytes) -> str:
    """The identity of an image that lies in a table: a digest of its encoded bytes."""
    return blake2b(content, digest_size=16).hexdigest()


def is_held_back(picture: str) -> bool:
    """Whether a training picture is held back for VALIDATION; one in ten is."""
    return int.from_bytes(blake2b(picture.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") % PARTS == 0


def holds_back(benchmark: Benchmark) -> bool:
    """Whether the benchmark's VALIDATION comes out of its training files."""
    return Split.TRAIN in benchmark.files and Split.VALIDATION not in benchmark.files


def file_split(benchmark: Benchmark, split: Split) -> Split:
    """The split whose files hold `split`: TRAIN for a VALIDATION that is held back, else itself."""
    return Split.TRAIN if split is Split.VALIDATION and holds_back(benchmark) else split


def splits_of(benchmark: Benchmark) -> list[Split]:
    """The splits that the benchmark has, in the usual order."""
    return [split for split in Split if file_split(benchmark, split) in benchmark.files]


def questions_of(benchmark: Benchmark, raw: Raw, split: Split) -> Sequence[Question]:
    """All questions of the files that hold `split`."""
    return benchmark.questions(raw, file_split(benchmark, split))


def chosen(benchmark: Benchmark, split: Split, total: int, pictures: Iterable[str], count: int | None = None) -> Sequence[int]:
    """The numbers of the first `count` questions (None: all) that the split takes, of the `total` in its files.

    `pictures`: what each question shows, in order. It is read only where pictures are held back, and no further than is needed.
    """
    if split is Split.TEST or not holds_back(benchmark):
        return range(total if count is None else min(count, total))
    numbers = (number for number, picture in enumerate(pictures) if is_held_back(picture) == (split is Split.VALIDATION))
    return array("Q", islice(numbers, count))
