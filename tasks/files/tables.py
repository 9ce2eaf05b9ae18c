"""Records of Parquet and Arrow files, fetched one at a time. Of a Parquet file the row groups used last are held, of an Arrow file nothing:
it is mapped into memory. Columns that no record needs are not read.
"""

import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from foundation.errors import InputError
from tasks.files.conversation import COLUMNS, LISTS

ROOM = 256 << 20
"""Bytes of row groups that are held; at least one is."""


class TableRecords:
    """The rows of a .parquet or .arrow file. `kind` names the format for a person. Rows come in pieces that are loaded as one."""

    def __init__(self, path: str, kind: str) -> None:
        import pyarrow

        self.path, self.kind = path, kind
        self._held: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()
        try:
            names, sizes, self._load = OPENERS[kind](path)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{path}: cannot be read as {kind}: {error}; write the file again") from error
        self._columns = [name for name in COLUMNS if name in names]
        if not set(LISTS) & set(names):
            raise InputError(f"{path}: has no column {' or '.join(LISTS)}; its columns are {', '.join(names)}")
        self._ends = array("q")
        for size in sizes:
            self._ends.append((self._ends[-1] if self._ends else 0) + size)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Any:
        """The row as a mapping; InputError where the file is damaged."""
        piece = bisect_right(self._ends, index)
        with self._lock:
            table = self._piece(piece)
        row = index - (self._ends[piece - 1] if piece else 0)
        return table.slice(row, 1).to_pylist()[0]

    def _piece(self, number: int) -> Any:
        """A piece of the table; those used longest ago make room."""
        import pyarrow

        if number not in self._held:
            try:
                self._held[number] = self._load(number, self._columns)
            except (pyarrow.ArrowException, OSError) as error:
                raise InputError(f"{self.path}: piece {number} cannot be read: {error}; write the file again") from error
        self._held.move_to_end(number)
        while len(self._held) > 1 and sum(table.nbytes for table in self._held.values()) > ROOM:
            self._held.popitem(last=False)
        return self._held[number]


Opened = tuple[list[str], list[int], Callable[[int, list[str]], Any]]
"""The names of the columns, the number of rows of each piece, and how piece i is loaded."""


def open_parquet(path: str) -> Opened:
    """A Parquet file in row groups."""
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(path, memory_map=True)
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
    return file.schema_arrow.names, sizes, lambda number, columns: file.read_row_group(number, columns=columns, use_threads=False)


def open_arrow_file(path: str) -> Opened:
    """An Arrow IPC file in record batches."""
    import pyarrow

    file = pyarrow.ipc.open_file(pyarrow.memory_map(path))
    sizes = [file.get_batch(number).num_rows for number in range(file.num_record_batches)]
    return file.schema.names, sizes, lambda number, columns: file.get_batch(number).select(columns)


def open_arrow_stream(path: str) -> Opened:
    """An Arrow IPC stream. It can only be read in order, so its batches are all held: as places in the mapped file, unless compressed."""
    import pyarrow

    stream = pyarrow.ipc.open_stream(pyarrow.memory_map(path))
    batches = list(stream)
    return stream.schema.names, [batch.num_rows for batch in batches], lambda number, columns: batches[number].select(columns)


OPENERS: dict[str, Callable[[str], Opened]] = {
    "Parquet": open_parquet,
    "Arrow file": open_arrow_file,
    "Arrow stream": open_arrow_stream,
}
