"""What a conversion found and what was missing: counted, the first few named, kept beside the files, refused beyond what is allowed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from foundation.errors import InputError
from tasks.arrow.drafts import Lack
from tasks.files.problems import SHOWN

KEPT = 1000
"""How many of each kind the report beside the files names, of each file; all are counted."""


@dataclass
class Lacks:
    """What is missing, by file and kind. `rows` are those gone through."""

    rows: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    named: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def add(self, file: str, lack: Lack) -> None:
        """Count one, and name it if it is among the first."""
        key = (file, str(lack.kind))
        self.counts[key] += 1
        names = self.named.setdefault(key, [])
        if len(names) < KEPT:
            names.append(lack.detail)

    @property
    def total(self) -> int:
        """How many things are missing."""
        return sum(self.counts.values())

    def of_file(self, file: str) -> int:
        """How many things are missing from one file."""
        return sum(count for (name, _), count in self.counts.items() if name == file)

    def sentence(self, data: str) -> str:
        """The counts, and the first few of each kind."""
        kinds: dict[str, list[tuple[str, str]]] = {}
        for (file, kind), names in self.named.items():
            kinds.setdefault(kind, []).extend((file, name) for name in names)
        counts = Counter({kind: sum(count for (_, each), count in self.counts.items() if each == kind) for kind in kinds})
        parts = [f"{counts[kind]:,} {kind} ({_first(named, counts[kind])})" for kind, named in kinds.items()]
        return f"{data}: {self.total:,} missing or unusable in {self.rows:,} rows: {'; '.join(parts)}"

    def refuse(self, data: str, most: int, root: str) -> None:
        """Raises InputError where more is missing than `most`."""
        if self.total > most:
            now = f" (it is {most})" if most else ""
            raise InputError(
                f"{self.sentence(data)}; images are looked for in {root}; mend them, or give --max-missing {self.total}{now} "
                "to go on without them"
            )

    def record(self, file: str) -> dict[str, Any]:
        """What is missing from one file: kind -> count and names."""
        return {
            kind: {"count": count, "named": self.named[name, kind]} for (name, kind), count in sorted(self.counts.items()) if name == file
        }


@dataclass(frozen=True)
class FileRow:
    """One file that was written, for the table: missing are those of its run of shards, told with the first."""

    name: str
    rows: int
    images: int
    texts: int
    size: int
    digest: str
    missing: int


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote. `lacks` are what was left out; `notes` what else the user should know."""

    data: str
    files: tuple[FileRow, ...]
    lacks: Lacks
    notes: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


def _first(named: Iterable[tuple[str, str]], count: int) -> str:
    shown = [f"{file}: {name}" for file, name in list(named)[:SHOWN]]
    return "; ".join(shown) + (", ..." if count > SHOWN else "")
