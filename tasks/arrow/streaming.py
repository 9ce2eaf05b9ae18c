"""Reads large JSON files element by element: an array, or the arrays inside one object. No more than a block and one element are held."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from tasks.files.json_text import JsonText


def elements(path: Path, key: str | None = None) -> Iterator[Any]:
    """The elements of the JSON array in `path`; of the array under `key` where the file is one object. Raises InputError."""
    try:
        with open(path, "rb") as file:
            text = JsonText(file, str(path), "JSON", "fetch the file again")
            yield from text.array(text.value) if key is None else _under(text, key)
    except OSError as error:
        raise InputError(f"{path}: the annotations cannot be opened ({error.strerror}); check --root") from error


def lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Number (from 1) and value of every line of a JSON-lines file that is not blank. Raises InputError."""
    for number, line in text_lines(path):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: is no JSON: {error}; fetch the file again") from error


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of every line, without its end; only \\n ends a line. Raises InputError."""
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip("\r\n")
    except OSError as error:
        raise InputError(f"{path}: the annotations cannot be opened ({error.strerror}); check --root") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8: {error}; fetch the file again") from error


def opens_with(path: Path) -> str:
    """The first character that is no space."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.read(4096).lstrip()[:1]
    except OSError as error:
        raise InputError(f"{path}: the annotations cannot be opened ({error.strerror}); check --root") from error


def _under(text: JsonText, key: str) -> Iterator[Any]:
    found = False
    text.expect("{")
    while text.peek() == '"':
        name = text.value()
        text.expect(":")
        if name == key:
            found = True
            yield from text.array(text.value)
        elif text.peek() == "[":
            for _ in text.array(text.value):
                pass
        else:
            text.value()
        if text.peek() != ",":
            break
        text.expect(",")
    text.expect("}")
    if not found:
        raise InputError(f"{text.path}: has no list {key!r}; it is not the published file of annotations")
