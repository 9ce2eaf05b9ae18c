"""Rows of a benchmark's published tables, read when they are asked for: Parquet, JSON (a list, or an object whose `data` is one), JSON
lines, CSV and TSV with a header line. Of Parquet files the row groups used last are held; a text file is held whole.

A row says where it lies, and its getters refuse what is not as published, so that a benchmark need only name the columns.
"""

import csv
import json
import math
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, count
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

from foundation.errors import InputError

ROOM = 256 << 20
"""Bytes of row groups that are held, of all files together; at least one is."""

LARGEST_CELL = 1 << 28
"""Characters of one cell of a CSV file."""

LONGEST = 400
"""Characters of a row's fault that are told; a cell may hold a book."""

Value = TypeVar("Value")


class Row(dict[str, Any]):
    """One row: a mapping of column to value. `place` says which row of which file. A column that is not there is an InputError."""

    def __init__(self, values: Mapping[str, Any], place: str, source: str) -> None:
        super().__init__(values)
        self.place, self.source = place, source

    def __missing__(self, column: str) -> Any:
        raise self.wrong(f"has no column {column}; its columns are {', '.join(self)}")

    def wrong(self, what: str) -> InputError:
        """An InputError about this row: what is wrong, and where to get a sound file."""
        told = what if len(what) <= LONGEST else f"{what[: LONGEST // 2]} ... {what[-LONGEST // 2 :]}"
        return InputError(f"{self.place}: {told}; get the file as published, from {self.source}")

    def said(self, column: str) -> str:
        """The text of a column, without space at its ends; an InputError where it is empty or no text."""
        value = self[column]
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(f"{column} is {value!r}, not a text")
        return value.strip()

    def whole(self, column: str) -> int:
        """The whole number of a column, also where it is written as text or as 3.0."""
        value = self[column]
        try:
            if isinstance(value, bool) or not math.isfinite(number := float(value)) or number != int(number):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise self.wrong(f"{column} is {value!r}, not a whole number") from None
        return int(number)

    def listed(self, column: str) -> list[Any]:
        """The list of a column; an InputError where it is none or empty."""
        value = self[column]
        if not isinstance(value, list) or not value:
            raise self.wrong(f"{column} is {value!r}, not a list")
        return value

    def picture(self, column: str = "image") -> bytes:
        """The encoded image in a column, as hub tables hold it: {"bytes": ..., "path": ...}, or the bytes alone."""
        value = self[column]
        content = value.get("bytes") if isinstance(value, Mapping) else value
        if not isinstance(content, bytes) or not content:
            raise self.wrong(f"{column} holds no image, but {_kind(value)}")
        return content


class Table(Protocol):
    """The rows of one file."""

    columns: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...

    def column(self, name: str) -> list[Any]: ...


class Rows(Sequence[Row]):
    """All rows of some files, one after the other. `columns`: those that every file must have."""

    def __init__(self, files: Sequence[Path], source: str, columns: Sequence[str] = ()) -> None:
        self.files, self.source = tuple(files), source
        self.tables = [open_table(path, source) for path in self.files]
        for path, table in zip(self.files, self.tables, strict=True):
            lost = [column for column in columns if column not in table.columns]
            if lost and len(table):
                raise InputError(
                    f"{path}: has no column {' and no column '.join(lost)}; its columns are {', '.join(table.columns)}, and those needed "
                    f"are {', '.join(columns)}; get the file as published, from {source}"
                )
        self.ends = list(accumulate(map(len, self.tables)))
        if not len(self):
            raise InputError(f"{', '.join(map(str, self.files))}: no rows; get the files as published, from {source}")

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        file = bisect_right(self.ends, place)
        number = place - (self.ends[file - 1] if file else 0)
        return Row(self.tables[file][number], f"row {number} (from 0) of {self.files[file]}", self.source)

    def column(self, name: str) -> list[Any]:
        """One whole column; of Parquet files no other is read. Raises InputError for a file without it."""
        found: list[Any] = []
        for path, table in zip(self.files, self.tables, strict=True):
            if name not in table.columns:
                told = f"has no column {name}; its columns are {', '.join(table.columns)}"
                raise InputError(f"{path}: {told}; get the file as published, from {self.source}")
            found += table.column(name)
        return found


class TextTable:
    """The rows of a text file, held whole."""

    def __init__(self, rows: list[Mapping[str, Any]]) -> None:
        self.rows = rows
        self.columns = list(dict.fromkeys(column for row in rows for column in row))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self.rows[index]

    def column(self, name: str) -> list[Any]:
        return [row.get(name) for row in self.rows]


class RowGroups:
    """The row groups used last, by the numbers of file and group; those used longest ago make room."""

    def __init__(self) -> None:
        self.held: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: tuple[int, int], read: Callable[[], Any]) -> Any:
        """The row group called `key`, which `read` gives."""
        with self.lock:
            if key not in self.held:
                self.held[key] = read()
            self.held.move_to_end(key)
            while len(self.held) > 1 and sum(table.nbytes for table in self.held.values()) > ROOM:
                self.held.popitem(last=False)
            return self.held[key]


ROW_GROUPS = RowGroups()
OPENED = count()
"""Numbers the Parquet files that were opened, so that a file that was written anew is another."""


class ParquetTable:
    """The rows of a Parquet file."""

    def __init__(self, path: str) -> None:
        from pyarrow.parquet import ParquetFile

        self.path, self.number = path, next(OPENED)
        self.file = ParquetFile(path, memory_map=True)
        self.columns: list[str] = self.file.schema_arrow.names
        groups = range(self.file.metadata.num_row_groups)
        self.ends = list(accumulate(self.file.metadata.row_group(group).num_rows for group in groups))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        group = bisect_right(self.ends, index)
        table = ROW_GROUPS.get((self.number, group), lambda: self._sound(lambda: self.file.read_row_group(group, use_threads=False)))
        return table.slice(index - (self.ends[group - 1] if group else 0), 1).to_pylist()[0]

    def column(self, name: str) -> list[Any]:
        return self._sound(lambda: self.file.read(columns=[name], use_threads=False).column(name).to_pylist())

    def _sound(self, read: Callable[[], Any]) -> Any:
        import pyarrow

        try:
            return read()
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{self.path}: is damaged: {error}; fetch the file again") from error


def open_table(path: Path, source: str) -> Table:
    """The rows of one file, by its suffix. Raises InputError for one that cannot be read."""
    try:
        status = os.stat(path)
        return _open(str(path), status.st_size, status.st_mtime_ns)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read as {path.suffix or 'a table'} ({error}); get the file as published, from {source}"
        ) from error


@lru_cache(maxsize=16)
def _open(path: str, size: int, changed: int) -> Table:
    return OPENERS[Path(path).suffix](path)


def _json(path: str) -> Table:
    held = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    return TextTable(_mappings(held.get("data") if isinstance(held, dict) else held))


def _json_lines(path: str) -> Table:
    lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    return TextTable(_mappings([json.loads(line) for line in lines if line.strip()]))


def _separated(path: str, delimiter: str) -> Table:
    csv.field_size_limit(LARGEST_CELL)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        rows: list[Mapping[str, Any]] = []
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"line {reader.line_num} has not as many cells as the header line")
            rows.append(row)
        return TextTable(rows)


def _mappings(held: Any) -> list[Mapping[str, Any]]:
    if not isinstance(held, list):
        raise ValueError("holds no list of records")
    bad = next((place for place, each in enumerate(held) if not isinstance(each, dict)), None)
    if bad is not None:
        raise ValueError(f"record {bad} (from 0) is no object")
    return held


def _kind(value: Any) -> str:
    return "nothing" if value is None or value == b"" else f"a {type(value).__name__}"


OPENERS = {
    ".parquet": ParquetTable,
    ".json": _json,
    ".jsonl": _json_lines,
    ".csv": lambda path: _separated(path, ","),
    ".tsv": lambda path: _separated(path, "\t"),
}
"""Suffix -> what reads it."""
