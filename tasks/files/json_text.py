"""JSON text read value by value, in blocks: no more than a block and one value are held, and a value's place is known in bytes."""

import codecs
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from foundation.errors import InputError

BLOCK = 1 << 20
LARGEST = 64 << 20
SPACE = " \t\n\r"
UNDECIDED = 2
"""A value that ends so near a block's end may be a number that goes on: `1` of `1.5`, of `1e5`, or of `1e+5` cut before its last figure."""

Read = TypeVar("Read")


class JsonText:
    """A piece of the text that moves on. `at` is where it is read; the character at `counted` is the byte `place` of the file.

    `what` names the text in an error, `remedy` says what to do about it.
    """

    def __init__(self, file: BinaryIO, path: str, what: str, remedy: str) -> None:
        self.file, self.path, self.what, self.remedy = file, path, what, remedy
        self.text, self.at, self.counted, self.ended = "", 0, 0, False
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.scan = json.JSONDecoder().raw_decode
        start = file.read(len(codecs.BOM_UTF8))
        self.place = len(start) if start == codecs.BOM_UTF8 else file.seek(0)

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
            raise self.error(f"has {found!r} where {character!r} should stand" if found else f"ends before its {character!r}")
        self.at += 1

    def value(self) -> Any:
        """The next value, read whole."""
        self.peek()
        while True:
            try:
                value, end = self.scan(self.text, self.at)
                length = end - self.at
                if len(self.text) - end > UNDECIDED or not self._more():
                    self.at += length
                    return value
            except (ValueError, RecursionError) as error:
                if len(self.text) - self.at > LARGEST or not self._more():
                    raise self.error(f"cannot be read: {error}") from error

    def span(self) -> tuple[int, int]:
        """Step over one value; the bytes at which it begins and ends."""
        self.peek()
        start = self._byte()
        self.value()
        return start, self._byte()

    def array(self, read: Callable[[], Read]) -> Iterator[Read]:
        """The elements of an array, one by one, each as `read` (`value` or `span`) gives it."""
        self.expect("[")
        if self.peek() != "]":
            yield read()
            while self.peek() == ",":
                self.expect(",")
                yield read()
        self.expect("]")

    def error(self, what: str) -> InputError:
        """An error that says where."""
        return InputError(f"{self.path}: the {self.what} {what} (at byte {self._byte():,}); {self.remedy}")

    def _byte(self) -> int:
        """The byte at which the text is read."""
        passed = self.text[self.counted : self.at]
        self.place += len(passed) if passed.isascii() else len(passed.encode())
        self.counted = self.at
        return self.place

    def _more(self) -> bool:
        """Drop what was read, and read on, as much again as is held; False at the end of the file."""
        if self.ended:
            return False
        self._byte()
        self.text, self.at, self.counted = self.text[self.at :], 0, 0
        block = self.file.read(max(BLOCK, len(self.text)))
        self.ended = not block
        try:
            self.text += self.decoder.decode(block, final=self.ended)
        except UnicodeDecodeError as error:
            raise self.error(f"is not UTF-8: {error}") from error
        return not self.ended
