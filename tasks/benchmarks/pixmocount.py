"""PixMo-Count: how many of something are in a photo? (arXiv 2409.17146)

Read from data/{train,validation,test}-*.parquet of allenai/pixmo-count (image_url, image_sha256, count, label; other columns are left
alone), with the images beside them as images/<image_sha256> with any suffix; or from tables of the same names that hold the images in a
column image (Jessemel/pixmocount-test). To learn from, the answer is a sentence; when asked, the question wants an integer. Score: the
first number of the response is the count (`scoring/numbers.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from foundation.errors import ConfigError, InputError
from foundation.hints import unknown
from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.questions import Asked, picture_mark
from tasks.benchmarks.raw import Raw
from tasks.benchmarks.rows import Row, Rows
from tasks.benchmarks.scoring.numbers import number_equals
from tasks.task import Example, Split

INSTRUCTION = "Answer with an integer only."
FOLDER = "images"
WAYS = ("refuse", "leave_out")


@dataclass(frozen=True)
class PixmoCount:
    """Counting. `missing_images`: refuse them, or leave_out the questions on images that could no longer be downloaded."""

    missing_images: str = "refuse"
    name: ClassVar[str] = "pixmocount"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "allenai/pixmo-count"
    max_new_tokens: ClassVar[int] = 16
    macro: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.missing_images not in WAYS:
            raise ConfigError(f"benchmark pixmocount: missing_images: {unknown('way', str(self.missing_images), WAYS)}")

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        tables = {split: f"data/{split}-*.parquet" for split in Split}
        return {split: (table, f"{FOLDER}/*|{table}") for split, table in tables.items()}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        rows = raw.rows(self.files[split][:1], ("count", "label"))
        if all("image" in table.columns for table in rows.tables):
            return Asked(rows, lambda number, row: _question(number, row, split, row.picture(), picture_mark(row.picture())))
        digests = rows.column("image_sha256")
        names = _names(raw.directory / FOLDER)
        missing = [digest for digest in digests if digest not in names]
        if missing and self.missing_images == "refuse":
            raise _refused(raw, rows, missing)
        numbers = [number for number, digest in enumerate(digests) if digest in names]
        return Asked(rows, lambda number, row: _question(number, row, split, names[digests[number]], digests[number]), numbers)

    def score(self, response: str, example: Example) -> float:
        return number_equals(response, example.answer)

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        return {}


def _question(number: int, row: Row, split: Split, image: str | bytes, picture: str) -> Question:
    count, label = row.whole("count"), row.said("label")
    if count < 0:
        raise row.wrong(f"count is {count}, less than none")
    text = f"How many {label} are in this image?"
    if split is Split.TRAIN:
        answer = f"There {'is' if count == 1 else 'are'} {count} {label} in this image."
    else:
        text, answer = f"{text}\n{INSTRUCTION}", str(count)
    return Question(str(number), text, answer, (image,), picture)


def _names(folder: Path) -> dict[str, str]:
    """Digest -> name of every image in the folder."""
    if not folder.is_dir():
        return {}
    return {path.stem: f"{FOLDER}/{path.name}" for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")}


def _refused(raw: Raw, rows: Rows, missing: Sequence[str]) -> InputError:
    return InputError(
        f"{raw.directory}: {len(missing):,} of {len(rows):,} images are not in {FOLDER}/, as {FOLDER}/{missing[0]}.jpg; get them from the "
        f"addresses in the column image_url of {raw.source}, or set missing_images: leave_out in its options to go on without them"
    )
