"""Splits never mix: no image and no record may be in two splits of a task, under whatever name.

An image is the same under another spelling of its path, under a link or another name, and held in a record. Beyond the sizes that the
task's identity asks for anyway, only those image files are read whose size in bytes also occurs in another split: at worst, where all sizes
are equal, each once. What they hold is remembered by their places, sizes and times of change. Images that were encoded anew, so that
their bytes differ, are not found.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b, sha256

from foundation.errors import InputError
from tasks.files.cache import WIDTH, remembered
from tasks.files.survey import CONTENT, IMAGE, RECORD, PictureFile, Survey
from tasks.task import Split

BLOCK = 1 << 20

Marks = dict[str, str]
"""What must not be in two splits -> what it is, for a person; in the order of the records."""


@dataclass(frozen=True)
class Surveyed:
    """What a split's records name, and its image files by the names that the records give them."""

    found: Survey
    pictures: dict[str, PictureFile]


def check_apart(task: str, surveyed: dict[Split, Surveyed], cache: str) -> None:
    """Raises InputError where two splits share an image or a record, with the names that both give it."""
    if len(surveyed) > 1:
        refuse_shared(task, {split: named(each) for split, each in surveyed.items()})
        contents = contents_of(surveyed, cache)
        refuse_shared(task, {split: held(each, contents) for split, each in surveyed.items()})


def refuse_shared(task: str, marks: dict[Split, Marks]) -> None:
    """Raise InputError where a mark is in two splits."""
    splits = list(marks)
    for place, one in enumerate(splits):
        for other in splits[place + 1 :]:
            shared = [mark for mark in marks[one] if mark in marks[other]]
            images = [mark for mark in shared if mark.startswith((IMAGE, CONTENT))]
            if shared:
                first = (images or shared)[0]
                names = dict.fromkeys((marks[one][first], marks[other][first]))
                raise InputError(
                    f"task {task!r}: {one} and {other} share images: {len(images):,}, records: {len(shared) - len(images):,}, the first "
                    f"{', the same as '.join(names)}; put each image into one split, with all that is asked about it"
                )


def named(split: Surveyed) -> Marks:
    """Image files by their places, and records."""
    marks: Marks = {}
    for entry in split.found:
        if entry.startswith(IMAGE):
            place = split.pictures[entry.removeprefix(IMAGE)].place
            marks[IMAGE + place] = repr(place)
        elif entry.startswith(RECORD):
            marks[entry] = f"the record with id {entry.removeprefix(RECORD).rpartition(' ')[0]!r}"
        elif not entry.startswith(CONTENT):
            marks[entry] = "a conversation without images"
    return marks


def held(split: Surveyed, contents: dict[str, str]) -> Marks:
    """Images by their bytes: those that lie in records, and those files whose place `contents` knows."""
    marks: Marks = {}
    for entry in split.found:
        if entry.startswith(CONTENT):
            marks.setdefault(entry.partition(" ")[0], "an image held in the records")
        elif entry.startswith(IMAGE) and (place := split.pictures[entry.removeprefix(IMAGE)].place) in contents:
            marks.setdefault(CONTENT + contents[place], repr(place))
    return marks


def contents_of(surveyed: dict[Split, Surveyed], cache: str) -> dict[str, str]:
    """Place of an image file -> mark of its bytes, for those whose size occurs in two splits."""
    sizes = {split: {*inline_sizes(each.found), *(file.size for file in sound(each))} for split, each in surveyed.items()}
    splits = Counter(size for each in sizes.values() for size in each)
    wanted = sorted({file for each in surveyed.values() for file in sound(each) if splits[file.size] > 1})
    if not wanted:
        return {}
    states = "\n".join(f"{file.place}|{file.size}|{file.changed}" for file in wanted)
    identity = sha256(states.encode("utf-8", "surrogateescape")).hexdigest()
    marks = remembered(f"images-v1-{identity[:32]}", cache, lambda: [file_mark(file.place) for file in wanted])
    return {file.place: mark for file, mark in zip(wanted, marks, strict=True) if mark}


def sound(split: Surveyed) -> Iterable[PictureFile]:
    """The image files that are there."""
    return (file for file in split.pictures.values() if not file.wrong)


def inline_sizes(found: Survey) -> Iterable[int]:
    """The sizes in bytes of the images that lie in records."""
    return (int(entry.rpartition(" ")[2]) for entry in found if entry.startswith(CONTENT))


def file_mark(path: str) -> str:
    """What `cache.content_mark` gives for the file's bytes, in hex; empty where it cannot be read, which `check.py` tells."""
    state = blake2b(digest_size=WIDTH)
    try:
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                state.update(block)
    except OSError:
        return ""
    return state.hexdigest()
