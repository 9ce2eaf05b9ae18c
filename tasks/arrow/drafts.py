"""What a converter hands to the writing: rows whose images are still names, and what it found lacking in the annotations."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tasks.arrow.layout import Layout


class Lacking(StrEnum):
    """What annotations can lack, worded to stand after a number. What is wrong with images is `tasks.files.problems.Kind`."""

    CAPTIONS = "without any caption"
    CAPTION = "with an empty caption"
    QUESTION = "with an empty question"
    ANNOTATION = "without its annotation"


@dataclass(frozen=True)
class Draft:
    """A row before its images are read: their names below the root, in the order of the layout's image columns, and all other columns.

    `texts` is the number of captions (questions, sentences) in it.
    """

    images: tuple[str, ...]
    values: Mapping[str, Any]
    texts: int


@dataclass(frozen=True)
class Lack:
    """One thing that should be there and is not: its kind, worded to stand after a number, and what it is."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Target:
    """One file (or one run of shards) to write: its name without ending, and its rows, which can be gone through again and again."""

    name: str
    layout: Layout
    rows: Callable[[], Iterator[Draft | Lack]]


class AnswersFrom(StrEnum):
    """Which questions the answer vocabulary is counted over: those that training reads, or the validation images too."""

    TRAINABLE = "trainable"
    ALL = "all"


@dataclass(frozen=True)
class Options:
    """How a data set is converted.

    max_missing: how many things may be missing or unreadable; they are left out and told. decode: decode each image to its last pixel
    instead of its header alone. only: the files to write (none: all). replace: write over files that are there.
    VQAv2: `least_answers`, occurrences as majority answer that bring an answer into the vocabulary; `answers_from`; `rest_images`, how
    many images of val are kept for validation, chosen by `seed`.
    Visual Genome: `without_coco`, a dataset_coco.json whose val and test images are left out.
    """

    max_missing: int = 0
    decode: bool = False
    only: tuple[str, ...] = ()
    replace: bool = False
    least_answers: int = 9
    answers_from: AnswersFrom = AnswersFrom.TRAINABLE
    rest_images: int = 1000
    seed: int = 0
    without_coco: Path | None = None


OWN_OPTIONS: dict[str, str] = {
    "least_answers": "vqav2",
    "answers_from": "vqav2",
    "rest_images": "vqav2",
    "seed": "vqav2",
    "without_coco": "visual_genome",
}
"""Options that only one data set has."""


@dataclass
class Source:
    """A data set, opened. `notes` are for the user, filled while the rows are gone through; `extra`: further files to write, by name."""

    targets: tuple[Target, ...]
    head: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
