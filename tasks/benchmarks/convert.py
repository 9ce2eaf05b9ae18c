"""Writes a split of a benchmark as LLaVA records with an image folder, to look at, to mix, or to train elsewhere; `file_task` reads them.

Images are copied as they are, each once, under a name that is a digest of its bytes; the records are written last, all at once. So a
conversion that was killed goes on where it was when it is run again, several may write side by side, and all write the same bytes.
"""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from foundation.files import write_atomic
from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.examples import BenchmarkExamples
from tasks.benchmarks.questions import picture_mark
from tasks.benchmarks.task import BenchmarkTask
from tasks.files.check import Progress
from tasks.files.images import located
from tasks.task import IMAGE_MARK, Split

FOLDER = "images"
SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg"}
"""Image formats whose usual suffix is not their name."""


def convert(task: BenchmarkTask, split: Split, out: Path, count: int | None = None, progress: Progress | None = None) -> Path:
    """Write the split's first `count` examples (None: all) into the directory `out`, and give the file of records, `<split>.json`.

    Other splits may lie in the same directory. Everything is checked before anything is written. Raises InputError as
    `BenchmarkTask.check`, and where the file is there already and holds something else.
    """
    path = out / f"{split}.json"
    task.check(split, count)
    examples = task.examples(split, count)
    lines: list[str] = []
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    for record in _records(task, examples, out):
        lines.append(json.dumps(record, ensure_ascii=False))
        if progress:
            progress(len(lines), len(examples))
    content = ("[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n").encode()
    if path.exists() and path.read_bytes() != content:
        raise InputError(f"{path}: is there already and holds other records; name another directory, or remove the file")
    write_atomic(path, content)
    return path


def _records(task: BenchmarkTask, examples: BenchmarkExamples, out: Path) -> Iterator[dict[str, Any]]:
    for place in range(len(examples)):
        asked = examples.question(place)
        names = [_saved(_content(task, picture), out) for picture in asked.images]
        image = {"image": names[0] if len(names) == 1 else names} if names else {}
        said = [{"from": "human", "value": _marked(asked)}, {"from": "gpt", "value": asked.answer}]
        yield {"id": examples.key(place), **image, "conversations": said}


def _marked(asked: Question) -> str:
    """The question with a mark for every image; those that its text does not place come first."""
    return f"{IMAGE_MARK}\n" * (len(asked.images) - asked.text.count(IMAGE_MARK)) + asked.text


def _content(task: BenchmarkTask, picture: str | bytes) -> bytes:
    return picture if isinstance(picture, bytes) else Path(located(task.directory, picture)).read_bytes()


def _saved(content: bytes, out: Path) -> str:
    """The image's name from `out`; written unless it is there."""
    from PIL import Image

    with Image.open(BytesIO(content)) as image:
        form = image.format or ""
    name = f"{FOLDER}/{picture_mark(content)}{SUFFIXES.get(form, f'.{form.lower()}')}"
    if not (out / name).exists():
        write_atomic(out / name, content)
    return name
