"""The header of one safetensors file: read with every check the format allows, or built for a file that is yet to be written.

The format: 8 bytes header length (little endian), a JSON header, then the tensors' bytes without gaps. So a file's layout is known before
its contents, which is what lets workers read and write byte ranges. Nothing here loads a tensor.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, ClassVar

from foundation.errors import InputError

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8,
}  # fmt: skip
"""Bytes per element of the dtypes that can be read."""
FLOATS = ("F64", "F32", "F16", "BF16")
"""The dtypes that can be averaged. All others are copied, and must be the same in every source."""

MAX_HEADER_BYTES = 32 << 20
MAX_TENSORS = 200_000
MAX_NAME = 512
MAX_DIMENSIONS = 32
VALUES_PER_ROW = 12
PICKLE_MARKS = (b"PK\x03\x04", b"\x80")
"""How a file begins that torch.save wrote: today's zip archive, and the bare pickle of before torch 1.6."""


@dataclass(frozen=True)
class LowRank:
    """A matrix scale * up @ down, to be added in float32 to a weight when it is read: a LoRA adapter on its base.

    `up` is [out, rank], `down` is [rank, in], each a plain tensor on disk. `transposed`: the weight is stored as [in, out].
    """

    up: TensorEntry
    down: TensorEntry
    scale: float
    transposed: bool = False


@dataclass(frozen=True)
class Rows:
    """A tensor put together from rows of others: row r is row `numbers[r]` of `parts[origins[r]]`, zeros where the origin is ZEROS.

    Two columns of bytes, because vocabularies are long: `origins` holds one byte per row, `numbers` a native 32-bit integer. The parts may
    differ in float dtype and in their number of rows, not in the shape of a row.
    """

    parts: tuple[TensorEntry, ...]
    origins: bytes
    numbers: bytes

    ZEROS: ClassVar[int] = 255

    @classmethod
    def of(cls, parts: Sequence[TensorEntry], places: Iterable[tuple[int, int]]) -> Rows:
        """From the (part, row) of every row; (Rows.ZEROS, 0) for a row of zeros."""
        listed = list(places)
        return cls(tuple(parts), bytes(part for part, _ in listed), array("i", (number for _, number in listed)).tobytes())

    def plain(self, dtype: str) -> bool:
        """Whether all parts have this dtype and nothing added, so that their bytes can be taken as they are."""
        return not any(part.dtype != dtype or part.added or part.rows for part in self.parts)

    def runs(self, first: int, last: int) -> Iterator[tuple[TensorEntry | None, int, int]]:
        """(part, its first row, number of rows) of each run of neighbours among rows [first, last), in order; None for zeros."""
        numbers = memoryview(self.numbers).cast("i")
        begin = first
        for row in range(first + 1, last + 1):
            origin = self.origins[begin]
            follows = row < last and self.origins[row] == origin and (origin == self.ZEROS or numbers[row] == numbers[row - 1] + 1)
            if not follows:
                yield None if origin == self.ZEROS else self.parts[origin], numbers[begin], row - begin
                begin = row


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in one file: its bytes are `nbytes` bytes from byte `start` of `path`.

    `added` are low-rank matrices that belong on top of it. `rows` takes the place of the bytes: the tensor is put together from rows of
    others (`path` and `start` are then those of the first part, for messages only), and `shape` is the shape that results.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: str
    start: int
    added: tuple[LowRank, ...] = ()
    rows: Rows | None = None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.elements * ITEM_BYTES[self.dtype]


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Name -> entry of every tensor in a safetensors file. Reads the header only.

    Raises InputError, naming the file, for whatever is not a whole and well-formed safetensors file.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        prefix = file.read(8)
        head = prefix + file.read(56)
        refuse_lookalikes(path, head, size)
        if head.startswith(PICKLE_MARKS) and head[8:9] != b"{":
            raise InputError(
                f"{path} is a pickle that is named .safetensors; pickles can run code and are not read: save the model again as safetensors"
            )
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER_BYTES:
            raise InputError(
                f"{path}: its header claims {length} bytes, more than {MAX_HEADER_BYTES}; not a safetensors file, or not one to trust"
            )
        if 8 + length > size:
            raise InputError(
                f"{path} is truncated: its header alone needs {8 + length} bytes, the file has {size}; copy or download it again"
            )
        file.seek(8)
        header = parse(path, file.read(length))
    entries = {name: entry(path, name, value, 8 + length) for name, value in header.items() if name != "__metadata__"}
    check_cover(path, entries.values(), 8 + length, size)
    return entries


def refuse_lookalikes(path: Path, head: bytes, size: int) -> None:
    """Raise InputError for what often lies in place of a weight file: nothing, a git-lfs pointer, a web page."""
    if size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy or download it again")
    if head[8:9] == b"{":  # a header of whatever length: its bytes must not be taken for the marks below
        return
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a git-lfs pointer, not the weights; run `git lfs pull` in its directory")
    if head.lstrip()[:1] == b"<":
        raise InputError(f"{path} is a web page (HTML), not the weights; a download has saved an error page: download it again")
    if size < 10:
        raise InputError(f"{path} has {size} bytes, too few for a file of weights; copy or download it again")


def parse(path: Path, text: bytes) -> dict[str, Any]:
    """The header as a dict; InputError for anything but one JSON object with distinct keys."""

    refuse_bomb(path, text, MAX_TENSORS)

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise InputError(f"{path}: {twice!r} stands twice in its header; which one counts is undefined, so the file is refused")
        return found

    try:
        header = json.loads(text, object_pairs_hook=distinct, parse_int=short_int)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a safetensors file: its header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise InputError(f"{path} is not a safetensors file: its header is not a JSON object")
    if len(header) > MAX_TENSORS:
        raise InputError(f"{path}: its header lists {len(header)} tensors, more than {MAX_TENSORS}")
    return header


def short_int(text: str) -> int:
    """A number of a header; ValueError for one too long to be a size (reading it would take its length squared)."""
    if len(text) > 20:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def refuse_bomb(path: Path, text: bytes, most: int) -> None:
    """Raise InputError for JSON of more values than `most` table rows can need: parsed, it would fill the memory."""
    values = text.count(b",") + text.count(b"{") + text.count(b"[")
    if values > VALUES_PER_ROW * most:
        raise InputError(f"{path}: its JSON has {values} values, more than {VALUES_PER_ROW * most}; not one to trust")


def entry(path: Path, name: str, value: Any, data_start: int) -> TensorEntry:
    """One tensor's header entry, checked."""
    check_name(path, name)
    try:
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
        numbers = [*shape, begin, end]
    except (TypeError, KeyError, ValueError):
        raise InputError(f"{path}: tensor '{name}' has no well-formed dtype, shape and data_offsets in the header") from None
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise InputError(f"{path}: tensor '{name}' has dtype {dtype!r}, which cannot be read; known: {', '.join(ITEM_BYTES)}")
    if len(shape) > MAX_DIMENSIONS or any(type(number) is not int or not 0 <= number < 1 << 63 for number in numbers):
        raise InputError(
            f"{path}: tensor '{name}' has a shape or offset that is not a whole number >= 0 (and below 2^63, of at most {MAX_DIMENSIONS} "
            f"dimensions): {str(shape)[:80]}, {str(begin)[:20]}:{str(end)[:20]}"
        )
    found = TensorEntry(name, dtype, tuple(shape), str(path), data_start + begin)
    if end - begin != found.nbytes:
        raise InputError(
            f"{path}: tensor '{name}' of shape {shape} and dtype {dtype} needs {found.nbytes} bytes, the header gives it {end - begin}"
        )
    return found


def check_name(path: Path, name: str) -> None:
    """Raise InputError for a tensor name that no model has."""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise InputError(f"{path}: tensor name {name[:80]!r} is empty, longer than {MAX_NAME} characters or not printable")


def check_cover(path: Path, entries: Iterable[TensorEntry], data_start: int, size: int) -> None:
    """Raise InputError unless the tensors cover the file from `data_start` to its end, without gap or overlap."""
    position = data_start
    for item in sorted(entries, key=lambda item: (item.start, item.nbytes)):
        if item.start != position:
            raise InputError(
                f"{path}: tensor '{item.name}' begins at byte {item.start}, expected {position}: the header has a gap or an overlap"
            )
        position += item.nbytes
    if position > size:
        raise InputError(f"{path} is truncated: its header describes {position} bytes, the file has {size}; copy or download it again")
    if position < size:
        raise InputError(f"{path} has {size - position} bytes more than its header describes; it is damaged: copy or download it again")


def build_header(tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> tuple[bytes, dict[str, int]]:
    """The opening bytes of a file of (name, dtype, shape) tensors in the order given, and each tensor's first byte in that file."""
    described: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape in tensors:
        end = position + prod(shape) * ITEM_BYTES[dtype]
        described[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    starts = {name: 8 + len(text) + value["data_offsets"][0] for name, value in described.items() if name != "__metadata__"}
    return len(text).to_bytes(8, "little") + text, starts
