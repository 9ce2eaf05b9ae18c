"""What `data` shows: how far a conversion is, the table of what it wrote, and the rows of an Arrow file as text."""

import shlex
import time
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table

from foundation.errors import InputError
from foundation.sizes import size
from pipeline.command.terminal import LINE_SECONDS, counting_bars, say
from tasks.arrow.names import DATA_SETS
from tasks.arrow.reading import ArrowRows, open_rows
from tasks.arrow.report import Converted
from tasks.pairs.records import Kind

SHOWN_KEPT = 3
"""Things left out that are named of each file and kind; the report holds more."""

TEXTS = {Kind.CAPTIONS: "captions", Kind.QUESTIONS: "questions", Kind.COMPARISONS: "sentences", Kind.LABELS: "labels"}
"""What the texts of a data set are."""

LONGEST = 160
"""Characters of a value that are shown."""


class RowProgress:
    """Shows how many rows of how many were gone through: a bar on a terminal, a plain line now and then elsewhere. A context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = counting_bars(console)
        self.task = self.bar.add_task("reading the annotations", total=None)
        self.began = self.told = time.monotonic()
        self.total = 0

    def __enter__(self) -> "RowProgress":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if total != self.total:  # the images are counted now: the writing begins
            self.total, self.began = total, now
        self.bar.update(self.task, description=what, completed=done, total=total or None)
        if self.console.is_terminal or now - self.told < LINE_SECONDS or (total and done >= total):
            return
        self.told = now
        rate = done / (now - self.began) if now > self.began else 0.0
        left = f" of {total:,}, {rate:,.0f} rows/s, {(total - done) / rate:.0f} s left" if total and rate else ""
        say(self.console, f"{what}: row {done:,}{left}")


def show_converted(converted: Converted, out: Path, console: Console) -> None:
    """The files that were written, and what was left out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("file", "rows", "images", TEXTS[DATA_SETS[converted.data].kind], "bytes", "missing"):
        table.add_column(name, justify="left" if name == "file" else "right", no_wrap=name == "file")
    for row in converted.files:
        counts = (f"{count:,}" for count in (row.rows, row.images, row.texts))
        table.add_row(f"{row.name}.arrow", *counts, size(row.size), f"{row.missing:,}")
    if len(converted.files) > 1:
        sums = (f"{sum(getattr(row, each) for row in converted.files):,}" for each in ("rows", "images", "texts"))
        table.add_row("all", *sums, size(sum(row.size for row in converted.files)), f"{converted.lacks.total:,}", style="bold")
    console.print(table)
    for name in converted.extra:
        say(console, f"also written: {name}")
    for note in converted.notes:
        say(console, f"note: {note}")
    for (file, kind), names in sorted(converted.lacks.named.items()):
        more = ", ..." if converted.lacks.counts[file, kind] > SHOWN_KEPT else ""
        say(console, f"left out of {file}: {converted.lacks.counts[file, kind]:,} {kind} ({'; '.join(names[:SHOWN_KEPT])}{more})")
    say(console, f"report: {out / (converted.data + '.report.json')}")


def show_file(file: Path, start: int, count: int, console: Console) -> None:
    """Columns, rows, and a few rows as text. Raises InputError for a file that is no Arrow file, or has no such row."""
    rows = open_rows(str(file))
    if start and start >= len(rows):
        raise InputError(f"{file}: has {len(rows):,} rows, counted from 0, and no row {start}; give a smaller --start")
    made = f", {rows.head['data_set']}" if "data_set" in rows.head else ""
    say(console, f"{file.name}: {len(rows):,} rows, {size(file.stat().st_size)}{made}")
    for name in rows.columns:
        say(console, f"  {name}: {rows.types[name]}")
    for row in range(start, min(start + count, len(rows))):
        say(console, f"row {row}")
        for name in rows.columns:
            say(console, f"  {name}: {_told(rows, row, name)}")
    if start + count < len(rows):
        say(console, f"next: python -m pipeline data show {shlex.quote(str(file))} --start {start + count}")


def _told(rows: ArrowRows, row: int, column: str) -> str:
    """A value as text; an image by its format and size."""
    value = rows.texts(row, (column,))[column]
    if isinstance(value, bytes):
        return f"{_picture(value)}, {size(len(value))}"
    text = _quoted(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text):,} characters)"


def _picture(content: bytes) -> str:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content)) as image:
            return f"{image.format} {image.width} x {image.height}"
    except UnidentifiedImageError:
        return "no image"


def _quoted(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
