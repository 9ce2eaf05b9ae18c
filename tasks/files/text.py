"""Records of JSON text, an array or one per line, fetched one at a time. Only where each record begins and ends is held: 16 bytes a record.

An array is not parsed as a whole: it is read in blocks, one element after another, and the elements are dropped again.
"""

import codecs
import json
import os
from array import array
from collections.abc import Iterator
from typing import Any, BinaryIO

from foundation.errors import InputError
from tasks.files.problems import Kind, Unusable

BLOCK = 1 << 20
LARGEST_RECORD = 64 << 20
SPACE = " \t\n\r"


class TextRecords:
    """The records of a .json or .jsonl file. `kind` names the format for a person."""

    def __init__(self, path: str, is_array: bool) -> None:
        self.path, self.kind = path, "JSON array" if is_array else "JSON lines"
        self.starts, self.ends = array("q"), array("q")
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  # held as long as the records are
        with open(path, "rb") as file:
            for start, end in array_spans(file, path) if is_array else line_spans(file):
                self.starts.append(start)
                self.ends.append(end)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Any:
        """The parsed record. Raises Unusable where its text is no JSON."""
        start = self.starts[index]
        text = os.pread(self._file.fileno(), self.ends[index] - start, start)
        try:
            return json.loads(text.decode())
        except (ValueError, RecursionError) as error:
            raise Unusable(Kind.MALFORMED, f"is no JSON: {error}") from error


def line_spans(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Where each line that is not blank begins and ends, in bytes."""
    start = 0
    for number, line in enumerate(file):
        mark = len(codecs.BOM_UTF8) if number == 0 and line.startswith(codecs.BOM_UTF8) else 0
        if line[mark:].strip():
            yield start + mark, start + len(line.rstrip())
        start += len(line)


def array_spans(file: BinaryIO, path: str) -> Iterator[tuple[int, int]]:
    """Where each element of a JSON array begins and ends, in bytes. Raises InputError where the text is no array."""
    text = _Window(file, path)
    text.expect("[")
    if text.peek() == "]":
        text.expect("]")
    else:
        while True:
            yield text.element()
            if text.peek() != ",":
                break
            text.expect(",")
        text.expect("]")
    if text.peek():
        raise text.error(f"goes on after its array with {text.peek()!r}")


class _Window:
    """A piece of the text that moves on. `at` is where it is read; the character at `counted` is the byte `place` of the file."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self.file, self.path, self.text, self.at, self.counted, self.ended = file, path, "", 0, 0, False
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

    def element(self) -> tuple[int, int]:
        """Step over one value; the bytes at which it begins and ends."""
        self.peek()
        while True:
            try:
                length = self.scan(self.text, self.at)[1] - self.at
                if self.at + length < len(self.text) or not self._more():
                    break
            except (ValueError, RecursionError) as error:
                if len(self.text) - self.at > LARGEST_RECORD or not self._more():
                    raise self.error(f"cannot be read: {error}") from error
        start = self._byte()
        self.at += length
        return start, self._byte()

    def error(self, what: str) -> InputError:
        """An error that says where."""
        return InputError(f"{self.path}: the JSON array {what} (at byte {self._byte():,}); mend the file, or write one record per line")

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
