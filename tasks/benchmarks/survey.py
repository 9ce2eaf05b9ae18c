"""Every question of a split is looked at before work starts: that it is as published, that its images are there and decode to the last
pixel, that no key stands twice, and that no picture is in another split too. What was found is remembered where there is a cache.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING

from foundation.errors import ConfigError, InputError
from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.examples import BenchmarkExamples
from tasks.benchmarks.questions import chosen, file_split, holds_back, picture_mark
from tasks.files.apart import file_mark
from tasks.files.cache import SoundImages, content_mark, mark, remembered
from tasks.files.check import Progress
from tasks.files.images import file_status, open_picture
from tasks.files.problems import Problem, Report, Unusable
from tasks.task import IMAGE_MARK, Answering, Split

if TYPE_CHECKING:
    from tasks.benchmarks.task import BenchmarkTask

CHUNK = 64
"""Questions whose images are decoded together; no more are held in memory."""

SHOWN = 3
"""How many shared pictures are named."""

_found: dict[str, list[str]] = {}


def pictures(task: "BenchmarkTask", split: Split) -> list[str]:
    """What each question of the split's files shows, in order; remembered."""
    return _known(_title(task, split, "pictures"), task.cache, lambda: [each.picture for each in task.questions(split)])


def contents(task: "BenchmarkTask", split: Split) -> list[str]:
    """The key of each question of the split's files, in order, and digests of its encoded images, divided by tabs; remembered."""

    def marks(question: Question) -> str:
        return "\t".join([question.key, *(_content(task.directory, picture) for picture in question.images)])

    return _known(_title(task, split, "contents"), task.cache, lambda: [marks(each) for each in task.questions(split)])


def look(task: "BenchmarkTask", examples: BenchmarkExamples, others: Sequence[Split], decode: bool, progress: Progress | None) -> Report:
    """The report on `examples`. Raises InputError as `BenchmarkTask.check` says."""
    keys: set[str] = set()
    problems: list[Problem] = []
    sound = SoundImages(task.cache)
    asked = (examples.question(number) for number in range(len(examples)))
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        while chunk := list(islice(asked, CHUNK)):
            for each in chunk:
                _check_question(task, each, keys)
            found = pool.map(lambda each: _broken(task.directory, each, sound.known, decode), chunk)
            problems += [Problem(each.key, wrong.kind, wrong.detail) for each, wrong in zip(chunk, found, strict=True) if wrong]
            if progress:
                progress(len(keys), len(examples))
    sound.save()
    usable = len(examples) - len(problems)
    report = Report(task.name, examples.split, len(examples), len(examples), usable, tuple(problems))
    if problems:
        where = f"images are looked for in {task.directory}; get them from {task.benchmark.source}"
        raise InputError(f"{report.sentence}; {where}")
    for other in others:
        check_apart(task, examples.split, other)
    return report


def check_apart(task: "BenchmarkTask", one: Split, other: Split) -> None:
    """Raises InputError where two splits, each with files of its own, show more of the same pictures than may be, by their encoded bytes.

    A VALIDATION that is held back is divided from TRAIN by the published identity of the pictures, so there is nothing to look for.
    """
    if file_split(task.benchmark, one) is file_split(task.benchmark, other):
        return
    mine, theirs = _shown(task, one), _shown(task, other)
    shared = [content for content in mine if content in theirs]
    if len(shared) > task.max_shared_pictures:
        named = ", ".join(f"{mine[content]} and {theirs[content]}" for content in shared[:SHOWN])
        raise InputError(
            f"task {task.name!r}: {one} and {other} of {task.benchmark.name} share {len(shared):,} pictures, as those of questions {named} "
            f"(limit {task.max_shared_pictures}); take them out of one, or set max_shared_pictures: {len(shared)} in its options to use "
            "the splits as they were published"
        )


def _shown(task: "BenchmarkTask", split: Split) -> dict[str, str]:
    """Every picture that the split shows, by its encoded bytes, with the key of the first question on it."""
    marks = contents(task, split)
    shown = pictures(task, split) if holds_back(task.benchmark) else []
    found: dict[str, str] = {}
    for number in chosen(task.benchmark, split, len(marks), shown):
        key, *content = marks[number].split("\t")
        for each in filter(None, content):
            found.setdefault(each, key)
    return found


def _check_question(task: "BenchmarkTask", asked: Question, keys: set[str]) -> None:
    """Refuse what no single question shows: a key that stood before; and an empty answer, and choices that are lacking."""
    if asked.key in keys:
        raise InputError(
            f"task {task.name!r}: two questions have the key {asked.key}; get the files as published, from {task.benchmark.source}"
        )
    keys.add(asked.key)
    marks = asked.text.count(IMAGE_MARK)
    if marks not in (0, len(asked.images)):
        raise InputError(
            f"task {task.name!r}: question {asked.key} shows {len(asked.images)} image(s), and {IMAGE_MARK} stands {marks} time(s) in its "
            f"text; get the files as published, from {task.benchmark.source}"
        )
    if not asked.answer.strip():
        raise InputError(
            f"task {task.name!r}: question {asked.key} has no answer; get the files as published, from {task.benchmark.source}"
        )
    if task.answering is Answering.LIKELIHOOD and not asked.choices:
        raise ConfigError(
            f"task {task.name!r}: answering: likelihood chooses among given answers, and question {asked.key} of {task.benchmark.name} has "
            "none; write answering: generate"
        )


def _broken(directory: str, asked: Question, known: set[bytes], decode: bool) -> Unusable | None:
    """What is wrong with the first bad image of a question; sound ones are added to `known`."""
    try:
        for picture in asked.images:
            if isinstance(picture, bytes):
                state = content_mark(picture)
            else:
                path, status = file_status(directory, picture)
                state = mark(path, status.st_size, status.st_mtime_ns)
            if decode and state not in known:
                open_picture(directory, picture)
                known.add(state)
    except Unusable as error:
        return error
    return None


def _content(directory: str, picture: str | bytes) -> str:
    """A digest of an image's encoded bytes; empty for a file that is not there, which `look` tells."""
    if isinstance(picture, bytes):
        return picture_mark(picture)
    try:
        return file_mark(file_status(directory, picture)[0])
    except Unusable:
        return ""


def _known(title: str, cache: str, find: Callable[[], list[str]]) -> list[str]:
    """The list that `find` gives, found once in this process, and where there is a cache, once on this machine."""
    if title not in _found:
        _found[title] = remembered(title, cache, find)
    return _found[title]


def _title(task: "BenchmarkTask", split: Split, what: str) -> str:
    """The name under which something about the files of a split is remembered: it stands for benchmark, options, files and their states."""
    raw, kept = task.raw(), file_split(task.benchmark, split)
    states = [f"{path}|{(status := path.stat()).st_size}|{status.st_mtime_ns}" for path in raw.files(task.benchmark.files[kept])]
    identity = sha256("\n".join([repr(task.benchmark), str(task.benchmark.version), kept, *states]).encode("utf-8", "surrogateescape"))
    return f"{what}-v1-{identity.hexdigest()[:32]}"
