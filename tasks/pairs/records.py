"""The contract of a set of images with text: four kinds of record, and where a split's records come from.

A set is a frozen dataclass whose fields are its identity, so it can be part of a step's fingerprint. Making one loads no data, and its
records decode an image only when they are asked for it, so a split of any size takes little memory.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from tasks.task import Split

if TYPE_CHECKING:
    from PIL.Image import Image

Picture = Callable[[], "Image"]
"""Decodes an image, RGB. Raises InputError, which names file and record, for one that cannot be decoded."""


class Kind(StrEnum):
    """What a set's records are, and so how they are asked: retrieval, answers to questions, comparisons of two images, classification."""

    CAPTIONS = "captions"
    QUESTIONS = "questions"
    COMPARISONS = "comparisons"
    LABELS = "labels"


@dataclass(frozen=True)
class Captioned:
    """An image and its captions, in the order of the data, at least one. `key` is unique within the split."""

    key: str
    image: Picture = field(compare=False)
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Questioned:
    """A question about an image. `answers` maps each right answer to its score (soft targets, 0 to 1); empty where they are secret.

    `number` is the id that a submission file names the question by.
    """

    key: str
    image: Picture = field(compare=False)
    question: str = ""
    answers: Mapping[str, float] = field(default_factory=dict)
    number: int | None = None


@dataclass(frozen=True)
class Compared:
    """A sentence on two images, and whether it is true of them."""

    key: str
    images: tuple[Picture, Picture] = field(compare=False)
    sentence: str = ""
    label: bool = False


@dataclass(frozen=True)
class Labelled:
    """An image and the name of its class."""

    key: str
    image: Picture = field(compare=False)
    label: str = ""


Record = Captioned | Questioned | Compared | Labelled


@runtime_checkable
class PairSet(Protocol):
    """Images with text, in three splits that share no image."""

    version: ClassVar[int]
    """Bumped when the records change; part of the identity of every step that uses the set."""

    @property
    def name(self) -> str:
        """The name in tables and reports."""

    @property
    def kind(self) -> Kind:
        """What all of its records are."""

    def records(self, split: Split, count: int | None = None) -> Sequence[Record]:
        """The first `count` records of the split's fixed order (None: all). Deterministic and prefix-stable.

        Indexing reads one record; nothing is decoded before `image()` is called. Raises InputError where the data is missing.
        """

    def choices(self) -> tuple[str, ...]:
        """The answers (QUESTIONS) or classes (LABELS) to choose among, sorted as the head numbers them, from the training split alone;

        empty for other kinds."""
