"""Every record is checked before work starts: its form, that its images are there, and that they decode to the last pixel.

Records are looked at in the order of the sampling until as many usable ones are found as are wanted. What cannot be used is left out, and
told; nothing takes its place. Images are decoded by a few threads, and those that are sound are remembered (`cache.py`).
"""

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice

from foundation.errors import InputError
from tasks.files.cache import SoundImages, content_mark, file_digest, mark
from tasks.files.conversation import Conversation, Picture, read_record, record_id
from tasks.files.images import file_status, open_picture
from tasks.files.problems import Kind, Problem, Report, Unusable
from tasks.files.readers import Records
from tasks.files.scoring import first_number
from tasks.files.sources import RecordFile, Source, chosen
from tasks.task import Split

Progress = Callable[[int, int], None]
"""Called with the number of records looked at, and of all that may be."""

CHUNK = 64
"""Records whose images are decoded together; no more are held in memory."""

SLICE = 8
"""Records whose images one thread looks up at a time."""

SAVE_EVERY = 20_000
"""Images after which what was found is written, so that a check that is killed need not begin anew."""


@dataclass(frozen=True)
class Asked:
    """What is checked of a task: one split's source, and how."""

    task: str
    split: Split
    source: Source
    folder: str
    seed: int = 0
    wants_number: bool = False
    cache: str = ""


@dataclass(frozen=True)
class Looked:
    """One record: where it lies, and its conversation or what is wrong with it."""

    file: int
    row: int
    key: str
    held: Conversation | Unusable


@dataclass(frozen=True)
class Usable:
    """The records that can be used, in order: `rows[i]` of file `files[i]` among `records`."""

    records: tuple[Records, ...]
    names: tuple[str, ...]
    files: array
    rows: array


def find_usable(asked: Asked, count: int | None, decode: bool = True, progress: Progress | None = None) -> tuple[Usable, Report]:
    """The first `count` usable records (None: all), and what was found on the way. With `decode` False images only have to be there.

    Raises InputError where a file is not the one the task was made from.
    """
    _check_unchanged(asked)
    parts = chosen(asked.source, asked.seed)
    total = sum(len(numbers) for _, _, numbers in parts)
    usable = Usable(tuple(records for _, records, _ in parts), tuple(file.name for file, _, _ in parts), array("I"), array("Q"))
    problems: list[Problem] = []
    sound, looked_at = SoundImages(asked.cache), 0
    wanted = total if count is None else min(count, total)
    records = _parsed(asked, parts)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        while len(usable.rows) < wanted and (chunk := list(islice(records, CHUNK))):
            for each, wrong in zip(chunk, _wrong_in(chunk, asked.folder, sound.known, decode, pool), strict=True):
                if len(usable.rows) == wanted:
                    break
                looked_at += 1
                if wrong:
                    problems.append(Problem(each.key, wrong.kind, wrong.detail))
                else:
                    usable.files.append(each.file)
                    usable.rows.append(each.row)
            sound.save(SAVE_EVERY)
            if progress:
                progress(looked_at, total)
    sound.save()
    return usable, Report(asked.task, asked.split, total, looked_at, len(usable.rows), tuple(problems))


def refuse(report: Report, most: int, folder: str) -> None:
    """Raises InputError where more records are bad than `most`, or none is left."""
    bad = len(report.problems)
    if bad > most:
        now = f" (it is {most})" if most else ""
        place = f" (images are looked for in {folder})" if Kind.MISSING in report.kinds else ""
        raise InputError(f"{report.sentence}{place}; mend them, or set max_bad_records: {bad}{now} to go on without them")
    if bad and not report.usable:
        raise InputError(f"{report.sentence}; none is left, so there is nothing to go on with")


def record_key(task: str, split: Split, name: str, row: int, identity: str | None) -> str:
    """The name of a record's example: task, split, file, number in the file from 0, and the record's own id."""
    return f"{task}/{split}/{name}/{row}" + (f"/{identity}" if identity is not None else "")


def _parsed(asked: Asked, parts: Sequence[tuple[RecordFile, Records, Sequence[int]]]) -> Iterator[Looked]:
    """Every chosen record, parsed."""
    for place, (file, records, numbers) in enumerate(parts):
        for row in numbers:
            held: Conversation | Unusable
            identity = None
            try:
                record = records[row]
                identity = record_id(record)
                held = read_record(record)
                if asked.wants_number and first_number(held.turns[-1].text) is None:
                    held = Unusable(Kind.NO_NUMBER, repr(held.turns[-1].text[:40]))
            except Unusable as error:
                held = error
            yield Looked(place, row, record_key(asked.task, asked.split, file.name, row, identity), held)


def _wrong_in(chunk: Sequence[Looked], folder: str, known: set[bytes], decode: bool, pool: ThreadPoolExecutor) -> list[Unusable | None]:
    """What is wrong with each record. An image that several of them show is decoded once; sound ones are added to `known`."""
    slices = [chunk[start : start + SLICE] for start in range(0, len(chunk), SLICE)]
    marked = list(chain.from_iterable(pool.map(lambda some: [_marks_of(each, folder) for each in some], slices)))
    fresh = {mark: picture for marks in marked if not isinstance(marks, Unusable) for mark, picture in marks if mark not in known}
    tried = dict(zip(fresh, pool.map(lambda picture: _broken(folder, picture), fresh.values()), strict=True)) if decode else {}
    known.update(mark for mark, wrong in tried.items() if wrong is None)
    return [marks if isinstance(marks, Unusable) else next(filter(None, (tried.get(mark) for mark, _ in marks)), None) for marks in marked]


def _marks_of(looked: Looked, folder: str) -> list[tuple[bytes, Picture]] | Unusable:
    """The mark of every image of a record as it lies there now, or what is wrong with the record."""
    if isinstance(looked.held, Unusable):
        return looked.held
    try:
        return [(_mark_of(folder, picture), picture) for picture in looked.held.pictures]
    except Unusable as error:
        return error


def _broken(folder: str, picture: Picture) -> Unusable | None:
    """What is wrong with an image, found by decoding all of it."""
    try:
        open_picture(folder, picture)
    except Unusable as error:
        return error
    return None


def _mark_of(folder: str, picture: Picture) -> bytes:
    if isinstance(picture, bytes):
        return content_mark(picture)
    path, status = file_status(folder, picture)
    return mark(path, status.st_size, status.st_mtime_ns)


def _check_unchanged(asked: Asked) -> None:
    for file in asked.source.files:
        if file_digest(file.path, asked.cache) != file.digest:
            raise InputError(
                f"{file.path}: has changed since task {asked.task!r} was made from it; run the experiment again, so that the steps that "
                "rest on it are known by its new content"
            )
