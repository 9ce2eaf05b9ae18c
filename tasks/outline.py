"""What an example says and shows, without its pixels: for whoever counts, groups or checks examples before the first of them is learned.

A sequence of examples that can tell without decoding has the two methods of `Outlined`; of any other the example itself is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from tasks.task import Example, Turn


class ImageSize(NamedTuple):
    """How an image is shown: its PIL mode and (width, height) in pixels."""

    mode: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Outline:
    """An example with the sizes of its images in their place; `place` says where it lies (a record of a file), where that is known."""

    key: str
    turns: tuple[Turn, ...]
    images: tuple[ImageSize, ...]
    place: str = ""


@runtime_checkable
class Outlined(Protocol):
    """A sequence of examples that outlines one without decoding its images."""

    def outline(self, index: int) -> Outline:
        """What example `index` says, and the sizes of its images."""

    def has_images(self, index: int) -> bool:
        """Whether example `index` shows an image; no image file is opened."""


def outline(examples: Sequence[Example], index: int) -> Outline:
    """What example `index` says, and the sizes of its images; nothing is decoded where the sequence can tell."""
    if isinstance(examples, Outlined):
        return examples.outline(index)
    example = examples[index]
    return Outline(example.key, example.turns, tuple(ImageSize(image.mode, image.size) for image in example.images))


def has_images(examples: Sequence[Example], index: int) -> bool:
    """Whether example `index` shows an image; nothing is decoded where the sequence can tell."""
    return examples.has_images(index) if isinstance(examples, Outlined) else bool(examples[index].images)
