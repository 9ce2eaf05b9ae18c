"""The training examples of a stage: every caption of every image is one, and so is every question, comparison and labelled image.

Several sets are joined in their order, each set's examples in the order of its records, the captions of an image one after another.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import overload

from foundation.errors import ConfigError, InputError
from tasks.pairs.records import Captioned, Compared, Kind, Labelled, PairSet, Picture, Questioned, Record
from tasks.task import Split


class PairExamples(Sequence[Record]):
    """The examples of one or more sets as records, a captioned one with exactly one caption; see `pair_examples`.

    An example is read when it is asked for, and its image decoded when `image()` is called. Its key is "set/record", of a captioned image
    "set/record#caption".
    """

    def __init__(self, sets: Sequence[PairSet], parts: Sequence["SetExamples"]) -> None:
        self.sets = tuple(sets)
        self.parts = tuple(parts)
        self.ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self.ends[-1]

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        place = range(len(self))[index]
        part = bisect_right(self.ends, place)
        found = self.parts[part].example(place - (self.ends[part - 1] if part else 0))
        return replace(found, key=f"{self.sets[part].name}/{found.key}")

    @property
    def kind(self) -> Kind:
        """What all of the examples are."""
        return self.sets[0].kind

    def choices(self) -> tuple[str, ...]:
        """The answers or classes of all sets together, sorted; empty for captions and comparisons."""
        return tuple(sorted({choice for each in self.sets for choice in each.choices()}))


class SetExamples:
    """The first `most` examples of one set's records. `firsts`: where every caption is one, the number of the first of each record."""

    def __init__(self, records: Sequence[Record], each_caption: bool, most: int | None) -> None:
        self.records = records
        self.firsts = array("q", accumulate(map(captions_of, records), initial=0)) if each_caption else None
        whole = self.firsts[-1] if self.firsts else len(records)
        self.length = whole if most is None else min(whole, most)

    def __len__(self) -> int:
        return self.length

    def example(self, place: int) -> Record:
        """Example `place` of the set."""
        if self.firsts is None:
            return self.records[place]
        at = bisect_right(self.firsts, place) - 1
        record = self.records[at]
        assert isinstance(record, Captioned)
        caption = place - self.firsts[at]
        return replace(record, key=f"{record.key}#{caption}", captions=(record.captions[caption],))


def pair_examples(sets: Sequence[PairSet], split: Split = Split.TRAIN, count: int | None = None, each_caption: bool = True) -> PairExamples:
    """The examples of `split` of all `sets`, joined; with `count`, at most the first `count` of each set.

    Reads every record of captions once, to count them, but decodes no image. Without `each_caption` an image is one example, for what looks
    at images alone; then sets of any kind may be joined. Raises ConfigError for no sets, a set twice, or sets of different kinds,
    InputError for a set without examples or an image without a caption.
    """
    if not sets:
        raise ConfigError("there is no set to learn from; name at least one")
    twice = [each.name for place, each in enumerate(sets) if each in sets[:place]]
    if twice:
        raise ConfigError(f"set {twice[0]!r} stands twice among the sets of the stage; name it once")
    kinds = sorted({each.kind.value for each in sets})
    if each_caption and len(kinds) > 1:
        raise ConfigError(f"sets {', '.join(each.name for each in sets)} hold {' and '.join(kinds)}; learn each kind in a stage of its own")
    parts = [SetExamples(each.records(split, count), each_caption and each.kind is Kind.CAPTIONS, count) for each in sets]
    empty = [each.name for each, part in zip(sets, parts, strict=True) if not len(part)]
    if empty:
        raise InputError(f"set {empty[0]!r} has no {split.value} examples; leave it out, or check where its data lies")
    return PairExamples(sets, parts)


def captions_of(record: Record) -> int:
    """How many captions a record has; InputError where it has none."""
    assert isinstance(record, Captioned)
    if not record.captions:
        raise InputError(f"record {record.key!r} has no caption; remove it from the data")
    return len(record.captions)


def text_of(example: Record) -> str:
    """What is said of the example's image: caption, question or sentence; nothing of a labelled image."""
    match example:
        case Captioned():
            return example.captions[0]
        case Questioned():
            return example.question
        case Compared():
            return example.sentence
        case Labelled():
            return ""


def pictures_of(example: Record) -> tuple[Picture, ...]:
    """The example's images, yet to be decoded: two of a comparison, else one."""
    return example.images if isinstance(example, Compared) else (example.image,)
