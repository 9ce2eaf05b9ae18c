"""What can be wrong with a record, how it is counted, and how it is told. Light to import."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tasks.task import Split

SHOWN = 3
"""How many records are named for each kind of problem; the report holds them all."""


class Kind(StrEnum):
    """The kinds of problems, worded to stand after a number."""

    MALFORMED = "malformed"
    ROLES = "with wrong roles or turns out of order"
    UNANSWERED = "without an answer at the end"
    EMPTY_ANSWER = "with an empty answer"
    NO_NUMBER = "whose answer holds no number to score by"
    MARKS = "whose <image> marks do not match their images"
    VIDEO = "with a video, which no task here shows"
    REMOTE = "with an image on the network, which is not fetched"
    OUTSIDE = "with an image outside the image folder"
    MISSING = "with an image missing"
    UNREADABLE = "with an image file that cannot be opened"
    NOT_IMAGE = "with a file that is no image"
    TRUNCATED = "with an image truncated or damaged"
    TOO_LARGE = "with an image too large"
    MOVING = "with an image of several frames"
    RANGE = "with an image whose pixel values have no known range"


class Unusable(Exception):
    """A record cannot be used: what kind of problem, and the detail. Not for the user: `check.py` counts it."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


@dataclass(frozen=True)
class Problem:
    """One record that cannot be used: its key, the kind, and the detail (the image's name, the turn, the counts)."""

    key: str
    kind: Kind
    detail: str


@dataclass(frozen=True)
class Report:
    """What a check found: `looked_at` records in order until `usable` were found, of `chosen` that the sampling takes."""

    task: str
    split: Split
    chosen: int
    looked_at: int
    usable: int
    problems: tuple[Problem, ...] = ()

    @property
    def kinds(self) -> dict[str, int]:
        """How many records of each kind of problem, in the order of `Kind`."""
        counts = Counter(problem.kind for problem in self.problems)
        return {kind.value: counts[kind] for kind in Kind if kind in counts}

    @property
    def sentence(self) -> str:
        """The counts and the first few records of each kind."""
        of = f"the first {self.looked_at:,}" if self.looked_at < self.chosen else f"{self.looked_at:,}"
        head = f"{len(self.problems):,} of {of} records of task {self.task!r}, split {self.split}, cannot be used"
        parts = [f"{number:,} {kind} ({_named(self.of_kind(kind))})" for kind, number in self.kinds.items()]
        return head + (": " + "; ".join(parts) if parts else "")

    def of_kind(self, kind: str) -> list[Problem]:
        """The problems of one kind, in the order of the records."""
        return [problem for problem in self.problems if problem.kind == kind]


def _named(problems: Sequence[Problem]) -> str:
    named = [f"{problem.key}: {problem.detail}" for problem in problems[:SHOWN]]
    return "; ".join(named) + (", ..." if len(problems) > SHOWN else "")
