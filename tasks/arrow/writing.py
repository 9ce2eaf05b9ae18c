"""Writes one Arrow IPC file in record batches of bounded size, digesting it on the way. Same rows, same bytes.

A batch ends at a fixed number of rows or bytes, so no more than one batch is held, and where it ends depends on the rows alone.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tasks.arrow.layout import Layout, schema_of

BATCH_ROWS = 256
BATCH_BYTES = 32 << 20
"""A batch ends with the row that reaches either."""


@dataclass(frozen=True)
class Written:
    """A file as it was written: its size in bytes, its rows, and the SHA-256 of its bytes."""

    rows: int
    size: int
    digest: str


class Digesting:
    """A file to write to that digests what passes: what pyarrow needs of a sink, no more."""

    def __init__(self, path: Path) -> None:
        self.file = open(path, "wb")  # noqa: SIM115  # closed by `close`
        self.state, self.size = hashlib.sha256(), 0

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self.file.closed

    def write(self, data: Any) -> int:
        """Write bytes."""
        self.state.update(data)
        self.size += self.file.write(data)
        return len(data)

    def tell(self) -> int:
        """How many bytes were written."""
        return self.size

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        self.file.flush()

    def close(self) -> None:
        """Flush to disk and close."""
        if not self.file.closed:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()


class ArrowWriter:
    """A context manager: `add` rows; after it `written` tells what the file is. `most_held` is the most rows it ever held."""

    def __init__(self, path: Path, layout: Layout, head: Mapping[str, Any]) -> None:
        import pyarrow as pa

        self.layout, self.schema = layout, schema_of(layout, head)
        self.sink = Digesting(path)
        self.stream = pa.PythonFile(self.sink, mode="w")
        self.writer = pa.ipc.new_file(self.stream, self.schema)
        self.rows: list[Mapping[str, Any]] = []
        self.bytes_held, self.count, self.most_held = 0, 0, 0
        self.written: Written | None = None

    def __enter__(self) -> "ArrowWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
            self.writer.close()
        self.sink.close()
        if kind is None:
            self.written = Written(self.count, self.sink.size, self.sink.state.hexdigest())

    def add(self, row: Mapping[str, Any]) -> None:
        """One more row: every column of the layout by its name."""
        self.rows.append(row)
        self.count += 1
        self.most_held = max(self.most_held, len(self.rows))
        self.bytes_held += sum(len(row[name]) for name in self.layout.images)
        if len(self.rows) >= BATCH_ROWS or self.bytes_held >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self.rows:
            columns = [pa.array([row[field.name] for row in self.rows], type=field.type) for field in self.schema]
            self.writer.write_batch(pa.record_batch(columns, schema=self.schema))
            self.rows, self.bytes_held = [], 0
