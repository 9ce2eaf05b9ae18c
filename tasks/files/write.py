"""Writes a task's examples as files that `file_task` reads back: to look at them, to change them, or to train elsewhere.

Images are PNG, so nothing is lost: read again, the examples have the same images, turns and answers.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from foundation.errors import ConfigError, InputError
from foundation.files import publish_directory
from foundation.hints import unknown
from tasks.task import IMAGE_MARK, Example, Role, Split, Task, Turn

FOLDER = "images"
ROWS = 100
"""Rows in a row group or record batch: small, because training reads them in another order."""

SPEAKERS = {Role.SYSTEM: "system", Role.USER: "human", Role.ASSISTANT: "gpt"}


def export(task: Task, split: Split, directory: Path, form: str = "llava.json", count: int | None = None) -> Path:
    """Write a split of `task` into the new `directory` and give the file of records, named after the split.

    form: llava.json, llava.jsonl, messages.jsonl, messages.parquet or messages.arrow; the last two hold the images themselves, the others
    name files in `images/`. Raises ConfigError for another form; InputError where the directory is there already.
    """
    if form not in FORMS:
        raise ConfigError(unknown("form of export", form, FORMS))
    if directory.exists():
        raise InputError(f"{directory}: is there already; name a new directory to export to")
    temporary = directory.with_name(f".{directory.name}.tmp")
    temporary.mkdir(parents=True)
    name = f"{split}{Path(form).suffix}"
    FORMS[form](task.examples(split, count), temporary, temporary / name)
    publish_directory(temporary, directory)
    return directory / name


def write_llava_json(examples: Sequence[Example], folder: Path, path: Path) -> None:
    """One JSON array."""
    with open(path, "w", encoding="utf-8") as file:
        for place, record in enumerate(_llava(examples, folder)):
            file.write(("[\n" if place == 0 else ",\n") + json.dumps(record, ensure_ascii=False))
        file.write("\n]\n" if len(examples) else "[]\n")


def write_llava_lines(examples: Sequence[Example], folder: Path, path: Path) -> None:
    """One record per line."""
    _write_lines(_llava(examples, folder), path)


def write_messages_lines(examples: Sequence[Example], folder: Path, path: Path) -> None:
    """One record per line, with the images named inside the content."""
    _write_lines((_messages(example, _saved(example, place, folder)) for place, example in enumerate(examples)), path)


def write_messages_parquet(examples: Sequence[Example], folder: Path, path: Path) -> None:
    """Parquet with the images' bytes."""
    from pyarrow.parquet import ParquetWriter

    with ParquetWriter(path, _schema()) as writer:
        for batch in _batches(examples):
            writer.write_batch(batch)


def write_messages_arrow(examples: Sequence[Example], folder: Path, path: Path) -> None:
    """An Arrow file with the images' bytes."""
    import pyarrow

    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, _schema()) as writer:
        for batch in _batches(examples):
            writer.write_batch(batch)


FORMS: dict[str, Callable[[Sequence[Example], Path, Path], None]] = {
    "llava.json": write_llava_json,
    "llava.jsonl": write_llava_lines,
    "messages.jsonl": write_messages_lines,
    "messages.parquet": write_messages_parquet,
    "messages.arrow": write_messages_arrow,
}


def _llava(examples: Iterable[Example], folder: Path) -> Iterator[dict[str, Any]]:
    for place, example in enumerate(examples):
        names = _saved(example, place, folder)
        image = {"image": names[0] if len(names) == 1 else names} if names else {}
        said = [{"from": SPEAKERS[turn.role], "value": turn.text} for turn in _marked(example)]
        yield {"id": example.key, **image, "conversations": said}


def _messages(example: Example, names: Sequence[str]) -> dict[str, Any]:
    rest = iter(names)
    said = []
    for turn in _marked(example):
        parts: list[dict[str, str]] = []
        for place, text in enumerate(turn.text.split(IMAGE_MARK)):
            parts += [{"type": "image", "image": next(rest)}] if place else []
            parts += [{"type": "text", "text": text}] if text else []
        said.append({"role": turn.role.value, "content": parts})
    return {"id": example.key, "messages": said}


def _marked(example: Example) -> list[Turn]:
    """The turns with a mark for every image; marks that were left out open the first question."""
    turns = list(example.turns)
    bare = len(example.images) - sum(turn.text.count(IMAGE_MARK) for turn in turns)
    first = next(place for place, turn in enumerate(turns) if turn.role is Role.USER)
    turns[first] = Turn(Role.USER, f"{IMAGE_MARK}\n" * bare + turns[first].text)
    return turns


def _saved(example: Example, place: int, folder: Path) -> list[str]:
    """Write the example's images; their names from the folder."""
    names = []
    for number, image in enumerate(example.images):
        name = f"{FOLDER}/{place:07d}" + (f"_{number}" if number else "") + ".png"
        (folder / FOLDER).mkdir(exist_ok=True)
        image.save(folder / name)
        names.append(name)
    return names


def _write_lines(records: Iterable[dict[str, Any]], path: Path) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _schema() -> Any:
    import pyarrow as pa

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.schema([("id", pa.string()), ("messages", pa.list_(turn)), ("images", pa.list_(image))])


def _batches(examples: Sequence[Example]) -> Iterator[Any]:
    """Rows with plain-text messages that hold the marks, and the images beside them."""
    import pyarrow

    for start in range(0, len(examples), ROWS):
        rows = []
        for place in range(start, min(start + ROWS, len(examples))):
            example = examples[place]
            said = [{"role": turn.role.value, "content": turn.text} for turn in _marked(example)]
            images = [{"bytes": _png(image), "path": None} for image in example.images]
            rows.append({"id": example.key, "messages": said, "images": images})
        yield pyarrow.RecordBatch.from_pylist(rows, schema=_schema())


def _png(image: Any) -> bytes:
    sink = BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()
