"""What the records of a source name, without opening an image: the basis of a task's identity, and of the rule that splits never mix
(`apart.py`).

An image enters the identity by its name in the image folder and its size, one call to the file system each; its bytes are read while the
model learns. So an image that is replaced by another of another size makes another step; one of exactly the same size does not. An image
that lies in the record (Parquet, Arrow) is in the digest of the record file.
"""

from collections.abc import Iterator
from hashlib import blake2b, sha256
from typing import NamedTuple

from tasks.files.cache import content_mark, remembered
from tasks.files.conversation import Conversation, read_record
from tasks.files.images import absolute, file_status, relative
from tasks.files.problems import Unusable
from tasks.files.sources import Source, chosen

IMAGE, CONTENT, RECORD, TEXT = "image:", "content:", "record:", "text:"
"""What is named: an image by its name, or by its bytes and their number; a record by id and words, one without images by these."""

Survey = list[str]
"""Every name and mark in a source, once each, in the order of the records."""


class PictureFile(NamedTuple):
    """An image file: its place in one spelling, its size in bytes and its time of change in nanoseconds, or what is wrong with it."""

    place: str
    size: int = 0
    changed: int = 0
    wrong: str = ""


def survey(source: Source, seed: int, cache: str) -> Survey:
    """What the chosen records of a source name. Depends on the contents of the record files alone, and is remembered by them."""
    identity = sha256("\n".join(f"{file.digest} {file.sampling} {seed}" for file in source.files).encode()).hexdigest()

    def find() -> Survey:
        return list(dict.fromkeys(entry for conversation in conversations(source, seed) for entry in _entries(conversation)))

    return remembered(f"survey-v2-{identity[:32]}", cache, find)


def conversations(source: Source, seed: int) -> Iterator[Conversation]:
    """Every chosen record that is well formed."""
    for _, records, numbers in chosen(source, seed):
        for number in numbers:
            try:
                yield read_record(records[number])
            except Unusable:
                continue  # `check.py` counts it


def pictures_of(found: Survey, folder: str) -> dict[str, PictureFile]:
    """Every image that lies in a file, by the name the records give it."""
    return {name: _picture_file(folder, name) for name in (entry.removeprefix(IMAGE) for entry in found if entry.startswith(IMAGE))}


def pictures_digest(pictures: dict[str, PictureFile], folder: str) -> str:
    """SHA-256 of the sorted names and sizes of the images that lie in files; empty where there are none."""
    lines = sorted({f"{relative(folder, name)}\t{picture.wrong or picture.size}" for name, picture in pictures.items()})
    return sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest() if lines else ""


def _picture_file(folder: str, name: str) -> PictureFile:
    try:
        status = file_status(folder, name)[1]
    except Unusable as error:
        return PictureFile(absolute(folder, name), wrong=error.kind.name)
    return PictureFile(absolute(folder, name), status.st_size, status.st_mtime_ns)


def _entries(conversation: Conversation) -> Iterator[str]:
    for picture in conversation.pictures:
        yield IMAGE + picture if isinstance(picture, str) else f"{CONTENT}{content_mark(picture).hex()} {len(picture)}"
    words = "\n".join(f"{turn.role}: {turn.text}" for turn in conversation.turns)
    spoken = blake2b(words.encode(), digest_size=16).hexdigest()
    if not conversation.pictures:
        yield TEXT + spoken
    if conversation.id is not None:
        yield f"{RECORD}{conversation.id} {spoken}"
