"""The raw files of a published benchmark in one directory: found by their patterns, opened by their suffix.

A pattern is a glob below the directory ("data/test-*.parquet", "images/**/*"). Spellings of the same file in different publications are
divided by a bar, "data/train-*.parquet|annotations/train.json": the first that finds files counts. What is lacking is an error that names
directory, pattern and where the data is to be had.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from foundation.errors import InputError
from tasks.benchmarks.rows import Row, Rows

__all__ = ["Raw", "Row", "Rows", "spellings"]

PICTURES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\W.*")
"""The name of one shard of a file; behind its number some have a digest of their own."""

NAMED = 3
"""How many lacking shards are named."""


class Raw:
    """A directory of raw files. `source`: where they are to be had, for messages."""

    def __init__(self, directory: Path, source: str = "its publisher") -> None:
        self.directory, self.source = Path(directory), source
        self._matching: dict[str, list[Path]] = {}

    def files(self, patterns: Iterable[str]) -> list[Path]:
        """The files of all patterns, sorted by name within each pattern, each once. Raises InputError where a pattern finds none, or where
        shards are missing between the first and the last."""
        found: dict[Path, None] = {}
        for pattern in patterns:
            matching = self.matching(pattern)
            if not matching:
                raise InputError(f"{self.directory}: has no {' and no '.join(pattern.split('|'))}; get the raw files from {self.source}")
            _check_shards(matching, self.source)
            found.update(dict.fromkeys(matching))
        return list(found)

    def matching(self, pattern: str) -> list[Path]:
        """The files of one pattern, sorted; empty where there are none. Hidden files are left alone. Looked up once."""
        if pattern not in self._matching:
            self._matching[pattern] = next((found for spelling in pattern.split("|") if (found := self._glob(spelling))), [])
        return self._matching[pattern]

    def _glob(self, spelling: str) -> list[Path]:
        return sorted(path for path in self.directory.glob(spelling) if not path.name.startswith(".") and path.is_file())

    def lacks(self, patterns: Iterable[str]) -> bool:
        """Whether a pattern finds no file, so that the split is not here."""
        return not all(map(self.matching, patterns))

    def rows(self, patterns: Iterable[str], columns: Sequence[str] = ()) -> Rows:
        """All rows of all files, in the order of patterns and names; each file must have `columns`. Raises InputError."""
        return Rows(self.files(patterns), self.source, columns)

    def text(self, name: str) -> str:
        """The text of a plain file. Raises InputError where it is missing or no UTF-8."""
        path = self.directory / name
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is no text ({error}); get the file as published, from {self.source}") from error
        except OSError as error:
            raise InputError(f"{self.directory}: has no {name} that can be read; get the raw files from {self.source}") from error

    def pairs(self, name: str) -> list[tuple[str, str]]:
        """The lines of a plain file that are a key, a space and a value, as CUB's lists are. Raises InputError for other lines."""
        pairs = []
        for number, line in enumerate(self.text(name).split("\n"), start=1):
            key, _, value = line.strip().partition(" ")
            if line.strip() and not value:
                raise InputError(
                    f"{self.directory / name}, line {number}: {line!r} is no pair; get the file as published, from {self.source}"
                )
            if line.strip():
                pairs.append((key, value))
        return pairs


def spellings(patterns: Iterable[str]) -> list[str]:
    """Every spelling of the patterns by itself, as a download from a hub asks for them."""
    return list(dict.fromkeys(spelling for pattern in patterns for spelling in pattern.split("|")))


def is_picture(path: Path) -> bool:
    """Whether a file is an image by its suffix."""
    return path.suffix.lower() in PICTURES


def _check_shards(files: Sequence[Path], source: str) -> None:
    """Refuse a file of several shards of which some are missing."""
    there: dict[tuple[str, str], set[int]] = {}
    for path in files:
        if found := SHARD.fullmatch(str(path)):
            head, number, total = found.groups()
            there.setdefault((head, total), set()).add(int(number))
    for (head, total), numbers in there.items():
        lost = sorted(set(range(int(total))) - numbers)
        if lost:
            names = [f"{Path(head).name}-{number:05d}-of-{total}" for number in lost[:NAMED]]
            more = ", ..." if len(lost) > NAMED else ""
            raise InputError(
                f"{Path(head).parent}: {len(lost)} of {int(total)} shards are missing: {', '.join(names)}{more}; get them from {source}"
            )
