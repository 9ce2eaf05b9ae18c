"""Records of JSON text, an array or one per line, fetched one at a time. Only where each record begins and ends is held: 16 bytes a record.

An array is not parsed as a whole: it is read in blocks, one element after another, and the elements are dropped again.
"""

import codecs
import json
import os
from array import array
from collections.abc import Iterator
from typing import Any, BinaryIO

from tasks.files.json_text import JsonText
from tasks.files.problems import Kind, Unusable


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
    text = JsonText(file, path, "JSON array", "mend the file, or write one record per line")
    yield from text.array(text.span)
    if text.peek():
        raise text.error(f"goes on after its array with {text.peek()!r}")
