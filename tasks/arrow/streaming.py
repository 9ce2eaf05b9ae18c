"""Reads large JSON files element by element: an array, or the arrays inside one object. No more than a block and one element are held."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from foundation.errors import InputError

BLOCK = 1 << 20
LARGEST = 64 << 20
SPACE = " \t\n\r"
AFTER = frozenset(",]}:" + SPACE)
"""What may stand behind a value; anything else, and the end of a block, may be more of it."""


def elements(path: Path, key: str | None = None) -> Iterator[Any]:
    """The elements of the JSON array in `path`; of the array under `key` where the file is one object. Raises InputError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = _Text(file, path)
            if key is None:
                yield from text.array()
            else:
                yield from _under(text, key)
    except OSError as error:
        raise InputError(f"{path}: the annotations cannot be opened ({error.strerror}); check --root") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8: {error}; fetch the file again") from error


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


def _under(text: "_Text", key: str) -> Iterator[Any]:
    found = False
    text.expect("{")
    while text.peek() == '"':
        name = text.value()
        text.expect(":")
        if name == key:
            found = True
            yield from text.array()
        elif text.peek() == "[":
            for _ in text.array():
                pass
        else:
            text.value()
        if text.peek() != ",":
            break
        text.expect(",")
    text.expect("}")
    if not found:
        raise InputError(f"{text.path}: has no list {key!r}; it is not the published file of annotations")


class _Text:
    """A piece of the file that moves on; `at` is where it is read, `before` how many characters lie before it."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self.file, self.path, self.text, self.at, self.before, self.ended = file, path, "", 0, 0, False
        self.scan = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in SPACE:
                self.at += 1
            if self.at < len(self.text) or not self._more():
                return self.text[self.at : self.at + 1]

    def expect(self, character: str) -> None:
        """Step over `character`."""
        found = self.peek()
        if found != character:
            raise self._error(f"has {found!r} where {character!r} should stand" if found else f"ends before its {character!r}")
        self.at += 1

    def value(self) -> Any:
        """The next value, read whole."""
        self.peek()
        while True:
            try:
                value, end = self.scan(self.text, self.at)
                if self.text[end : end + 1] in AFTER or not self._more():  # a number may go on in the next block
                    self.at = end
                    return value
            except (ValueError, RecursionError) as error:
                if len(self.text) - self.at > LARGEST or not self._more():
                    raise self._error(f"cannot be read: {error}") from error

    def array(self) -> Iterator[Any]:
        """The elements of an array, one by one."""
        self.expect("[")
        if self.peek() != "]":
            yield self.value()
            while self.peek() == ",":
                self.expect(",")
                yield self.value()
        self.expect("]")

    def _more(self) -> bool:
        """Drop what was read, and read on, as much again as is held; False at the end of the file."""
        if self.ended:
            return False
        self.before += self.at
        self.text, self.at = self.text[self.at :], 0
        block = self.file.read(max(BLOCK, len(self.text)))
        self.ended = not block
        self.text += block
        return not self.ended

    def _error(self, what: str) -> InputError:
        return InputError(f"{self.path}: the JSON {what} (at character {self.before + self.at:,}); fetch the file again")
