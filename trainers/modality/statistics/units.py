"""The texts, images and pairs of training records, cut into parts by record.

A part is a run of consecutive records; which records it has follows from their number and the number of parts alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from foundation.errors import ConfigError, InputError
from models.modality_experts.embeddings import IMAGE_TYPE, SECOND_IMAGE_TYPE
from tasks.pairs.records import Captioned, Compared, Labelled, PairSet, Picture, Questioned, Record
from tasks.task import Split
from trainers.modality.statistics.spec import Passage


@dataclass(frozen=True)
class Unit:
    """What runs through the model at one time: a text, an image, or both. `record` is the number of the record it comes from."""

    record: int
    text: str = ""
    image: Picture | None = None
    image_type: int = IMAGE_TYPE


@dataclass(frozen=True)
class Records:
    """The first `samples` training records of each set, one set after another."""

    sequences: tuple[Sequence[Record], ...]

    @classmethod
    def of(cls, sets: Sequence[PairSet], samples: int | None) -> "Records":
        """InputError for a set without training records, ConfigError for a set that stands twice."""
        twice = [each.name for place, each in enumerate(sets) if each in sets[:place]]
        if twice:
            raise ConfigError(f"set {twice[0]!r} stands twice among the sets to measure on; name it once")
        found = tuple(each.records(Split.TRAIN, samples) for each in sets)
        empty = [each.name for each, records in zip(sets, found, strict=True) if not len(records)]
        if empty:
            raise InputError(f"set {empty[0]!r} has no training records; leave it out, or check where its data lies")
        return cls(found)

    def __len__(self) -> int:
        return sum(map(len, self.sequences))

    def part(self, part: int, parts: int) -> Iterator[tuple[int, Record]]:
        """(number, record) of the records of part `part`, from 0; parts differ by one record at most."""
        begin, end = len(self) * part // parts, len(self) * (part + 1) // parts
        first = 0
        for records in self.sequences:
            for place in range(max(begin, first), min(end, first + len(records))):
                yield place, records[place - first]
            first += len(records)


def units_of(number: int, record: Record, passage: Passage) -> list[Unit]:
    """What a record sends through the model in one passage: each of its texts, each of its images, or each text with each image."""
    texts, images = contents(record)
    if passage is Passage.TEXT:
        return [Unit(number, text=text) for text in texts]
    if passage is Passage.IMAGE:
        return [Unit(number, image=image, image_type=kind) for image, kind in images]
    return [Unit(number, text, image, kind) for text in texts for image, kind in images]


def contents(record: Record) -> tuple[tuple[str, ...], tuple[tuple[Picture, int], ...]]:
    """A record's texts, and its images with their types."""
    match record:
        case Captioned():
            return record.captions, ((record.image, IMAGE_TYPE),)
        case Questioned():
            return (record.question,), ((record.image, IMAGE_TYPE),)
        case Compared():
            first, second = record.images
            return (record.sentence,), ((first, IMAGE_TYPE), (second, SECOND_IMAGE_TYPE))
        case Labelled():
            return (), ((record.image, IMAGE_TYPE),)
