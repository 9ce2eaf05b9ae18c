"""Opens a file of records by what it holds, not by what it is called, and keeps open those used last."""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from foundation.errors import InputError
from tasks.files.tables import TableRecords
from tasks.files.text import TextRecords

MAGIC = {b"PAR1": "Parquet", b"ARRO": "Arrow file", b"\xff\xff\xff\xff": "Arrow stream"}
TEXT = {b"[": True, b"{": False}
"""First character of a text file -> whether it is an array."""


class Records(Protocol):
    """The records of one file, by number."""

    @property
    def path(self) -> str:
        """Where the file lies."""

    @property
    def kind(self) -> str:
        """The format, for a person."""

    def __len__(self) -> int:
        """How many records."""

    def __getitem__(self, index: int) -> Any:
        """One record as the file holds it; Unusable where its text cannot be parsed."""


def stamp(path: str) -> tuple[str, int, int]:
    """A file's place, size and time of change: what tells that it is still the one that was read. InputError where there is none."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"{path}: the record file cannot be opened ({error.strerror}); check the path") from error
    return os.path.realpath(path), status.st_size, status.st_mtime_ns


def open_records(path: str) -> Records:
    """The records of a JSON, JSON-lines, Parquet or Arrow file. Raises InputError for any other, and for one without records."""
    return _open(*stamp(path))


@lru_cache(maxsize=32)
def _open(path: str, size: int, changed: int) -> Records:
    if not os.path.isfile(path):
        raise InputError(f"{path}: is a directory; name the files of records in it")
    with open(path, "rb") as file:
        head = file.read(4096)
    kind, first = MAGIC.get(head[:4]), head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if kind is None and first not in TEXT:
        what = f"begins with {head[:12]!r}" if head else "is empty"
        raise InputError(f"{path}: {what}; records are read from a JSON array, JSON lines, Parquet or Arrow")
    if kind is None and first == b"{" and Path(path).suffix == ".json":
        _check_lines(path)
    records: Records = TableRecords(path, kind) if kind else TextRecords(path, TEXT[first])
    if not len(records):
        raise InputError(f"{path}: holds no records ({records.kind}); name a file that does")
    return records


def _check_lines(path: str) -> None:
    """A .json file that opens with a brace is JSON lines or one large object; only the first is records."""
    with open(path, "rb") as file:
        line = next(each for each in file if each.removeprefix(b"\xef\xbb\xbf").strip())
    try:
        json.loads(line)
    except ValueError as error:
        raise InputError(f"{path}: is one JSON object, not a list of records; write an array of records, or one record per line") from error
