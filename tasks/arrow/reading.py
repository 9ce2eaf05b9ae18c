"""Opens an Arrow file as the converters write it, mapped into memory: rows at random, images and texts apart. Nothing is read ahead.

Files of the usual writers with the same columns are read too. An opened file is kept per process and per state of the file.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import InputError
from tasks.arrow.layout import HEAD
from tasks.arrow.publishing import DIGESTS
from tasks.files.cache import file_digest
from tasks.files.images import decode
from tasks.files.problems import Unusable
from tasks.files.readers import stamp

if TYPE_CHECKING:
    from PIL.Image import Image

BATCHES_HELD = 64
"""Batches whose places in the mapped file are held ready."""


class ArrowRows:
    """The rows of an Arrow IPC file. Raises InputError where it is none."""

    def __init__(self, path: str) -> None:
        import numpy as np
        import pyarrow as pa

        self.path = path
        self._held: OrderedDict[int, Any] = OrderedDict()
        self._lengths: dict[str, Any] = {}
        self._lock = threading.Lock()
        try:
            self._file = pa.ipc.open_file(pa.memory_map(path))
            sizes = [self._file.get_batch(number).num_rows for number in range(self._file.num_record_batches)]
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path}: cannot be read as an Arrow file: {error}; convert the data set again") from error
        self.columns = tuple(self._file.schema.names)
        self.types = {field.name: str(field.type) for field in self._file.schema}
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self.head: dict[str, Any] = json.loads((self._file.schema.metadata or {}).get(HEAD, b"{}"))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def texts(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """The named columns of a row."""
        batch, place = self._at(row)
        return {name: batch.column(name)[place].as_py() for name in columns}

    def image(self, row: int, column: str) -> bytes:
        """An encoded image."""
        batch, place = self._at(row)
        return batch.column(column)[place].as_py()

    def values(self, column: str) -> Iterator[Any]:
        """A column, row by row, batch by batch; as pyarrow scalars, so that images are not copied."""
        for number in range(self._file.num_record_batches):
            yield from self._batch(number).column(column)

    def plain(self, column: str) -> Iterator[Any]:
        """A column of texts or numbers, row by row."""
        for number in range(self._file.num_record_batches):
            yield from self._batch(number).column(column).to_pylist()

    def items(self, column: str) -> Any:
        """How many entries the lists of a column hold up to and with each row, as an int64 array."""
        import numpy as np

        if column not in self._lengths:
            parts = [
                self._batch(number).column(column).value_lengths().to_numpy(zero_copy_only=False)
                for number in range(self._file.num_record_batches)
            ]
            self._lengths[column] = np.cumsum(np.nan_to_num(np.concatenate([np.zeros(0), *parts])), dtype=np.int64)
        return self._lengths[column]

    def _at(self, row: int) -> tuple[Any, int]:
        """The batch of a row, and the row's place in it."""
        import numpy as np

        number = int(np.searchsorted(self._ends, row, side="right"))
        return self._batch(number), row - (int(self._ends[number - 1]) if number else 0)

    def _batch(self, number: int) -> Any:
        import pyarrow as pa

        with self._lock:
            if number not in self._held:
                try:
                    self._held[number] = self._file.get_batch(number)
                except (pa.ArrowException, OSError) as error:
                    raise InputError(f"{self.path}: batch {number} cannot be read: {error}; convert the data set again") from error
                if len(self._held) > BATCHES_HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(number)
            return self._held[number]


def open_rows(path: str) -> ArrowRows:
    """The rows of an Arrow file, opened once per process and state of the file. Raises InputError."""
    return _open(*stamp(path))


@lru_cache(maxsize=256)
def _open(path: str, size: int, changed: int) -> ArrowRows:
    return ArrowRows(path)


def picture(path: str, row: int, column: str) -> "Image":
    """The image of a row, RGB. Raises InputError naming file and row where it cannot be decoded."""
    try:
        return decode(BytesIO(open_rows(path).image(row, column) or b""), "the image")
    except Unusable as error:
        advice = "convert the data set again with --decode, which finds such images"
        raise InputError(f"{path}, row {row}, column {column}: {error.kind.removeprefix('with ')} ({error.detail}); {advice}") from error


def digest_of(path: str, cache: str) -> str:
    """SHA-256 of a file: as the converter noted it, where the file has not changed since; else by reading it, once per state."""
    place, size, changed = stamp(path)
    try:
        noted = json.loads((Path(place).parent / DIGESTS).read_text()).get(Path(place).name, {})
    except (OSError, ValueError):
        noted = {}  # not written by a converter here, or the notes were thrown away
    if (noted.get("size"), noted.get("changed")) == (size, changed):
        return noted["sha256"]
    return file_digest(path, cache)
