"""Splits never mix: no image may be in two splits of a set, by the id that the data set gives it or by its very bytes.

Ids are read without touching images. By content every image is read once, and what was found is remembered by the files' digests; it
also finds an image under two ids, and images that two data sets share. Images that were encoded anew are not found.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b

from foundation.errors import InputError
from tasks.arrow.reading import ArrowRows, open_rows
from tasks.arrow.records import ArrowFile
from tasks.files.cache import WIDTH, remembered
from tasks.pairs.records import Kind
from tasks.task import Split


class Apart(StrEnum):
    """How it is checked that no image is in two splits."""

    IDS = "ids"
    CONTENT = "content"
    UNCHECKED = "unchecked"


IDS = {Kind.CAPTIONS: "image_id", Kind.QUESTIONS: "image_id", Kind.COMPARISONS: "identifier", Kind.LABELS: "image_id"}
IMAGES = {Kind.COMPARISONS: ("image_0", "image_1")}
"""The columns of images, where they are not `image` alone."""

Marks = Iterable[str]
"""What must be in one split only, row by row of a file."""

Spot = tuple[Split, ArrowFile, int]
"""A split, a file of it, and the number of a mark in the file."""


def check_apart(name: str, kind: Kind, files: Mapping[Split, Sequence[ArrowFile]], apart: Apart, cache: str) -> None:
    """Raises InputError where two splits share an image, with the places of the first."""
    held = {split: each for split, each in files.items() if each}
    if len(held) > 1 and apart is not Apart.UNCHECKED:
        _refuse_shared(name, "id", held, lambda rows, file: id_marks(rows, kind))
        if apart is Apart.CONTENT:
            _refuse_shared(name, "content", held, lambda rows, file: content_marks(rows, file, kind, cache))


def id_marks(rows: ArrowRows, kind: Kind) -> Marks:
    """The ids of a file's images, each with its data set; none where the file has no column of ids."""
    data = rows.head.get("data_set", "")
    return (f"{data}/{value}" for value in rows.plain(IDS[kind])) if IDS[kind] in rows.columns else ()


def content_marks(rows: ArrowRows, file: ArrowFile, kind: Kind, cache: str) -> Marks:
    """The digests of a file's images, column after column."""
    columns = IMAGES.get(kind, ("image",))

    def find() -> list[str]:
        images = (value.as_buffer() or b"" for column in columns for value in rows.values(column))
        return [blake2b(image, digest_size=WIDTH).hexdigest() for image in images]

    return remembered(f"arrow-images-v1-{file.digest[:32]}", cache, find)


def _refuse_shared(
    name: str, by: str, files: Mapping[Split, Sequence[ArrowFile]], marks_of: Callable[[ArrowRows, ArrowFile], Marks]
) -> None:
    """Go through the splits, the largest last: of that one nothing is held."""
    splits = sorted(files, key=lambda split: sum(len(open_rows(file.path)) for file in files[split]))
    seen: dict[str, Spot] = {}
    shared: dict[str, tuple[Spot, Spot]] = {}
    for split in splits:
        fresh: dict[str, Spot] = {}
        for file in files[split]:
            for number, mark in enumerate(marks_of(open_rows(file.path), file)):
                here = (split, file, number)
                if mark in seen:
                    shared.setdefault(mark, (seen[mark], here))
                elif split is not splits[-1]:
                    fresh.setdefault(mark, here)
        seen |= fresh
    if shared:
        first, second = sorted(next(iter(shared.values())), key=lambda place: list(Split).index(place[0]))
        raise InputError(
            f"set {name!r}: {first[0]} and {second[0]} share images by {by} ({len(shared):,} are in two splits), the first "
            f"{_told(first)} and {_told(second)}; put each image into one split, with all that is said about it"
        )


def _told(place: Spot) -> str:
    _, file, number = place
    return f"row {number % len(open_rows(file.path))} of {file.name}"
