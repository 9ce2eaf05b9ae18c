"""What every model of a run is asked about images with text, on which split, and how many records of each set.

A suite is a value, part of an evaluation's identity. Light to import: no torch.
"""

from collections import Counter
from dataclasses import dataclass

from foundation.errors import ConfigError
from tasks.pairs.records import Kind, PairSet
from tasks.task import Split


@dataclass(frozen=True)
class Asked:
    """One set, asked as its kind wants. `rerank`: how many of the best candidates the matching head orders again (retrieval; 0: none)."""

    set: PairSet
    rerank: int = 0

    def __post_init__(self) -> None:
        if self.rerank < 0:
            raise ConfigError(f"rerank {self.rerank} of set {self.set.name!r}: order 1 candidate or more again, or 0 for none")
        if self.rerank and self.set.kind is not Kind.CAPTIONS:
            raise ConfigError(f"rerank orders what was retrieved, but {self.set.name!r} is asked for {self.set.kind.value}; leave it out")

    @property
    def name(self) -> str:
        """The name in tables and reports."""
        return self.set.name


@dataclass(frozen=True)
class PairSuite:
    """The sets of the stream (learned in a later stage, or in this one) and held-out sets, as `evaluators.suite.Suite` has tasks.

    `samples`: how many records of each set are asked (None: all). ConfigError for an empty suite or a set that stands twice.
    """

    stream: tuple[Asked, ...]
    held_out: tuple[Asked, ...] = ()
    split: Split = Split.TEST
    samples: int | None = None

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ConfigError("the suite asks nothing; name at least one set")
        twice = sorted(name for name, count in Counter(asked.name for asked in self.tasks).items() if count > 1)
        if twice:
            raise ConfigError(f"the suite names {', '.join(map(repr, twice))} more than once; name each set once")
        if self.samples is not None and self.samples < 2:
            raise ConfigError(f"the suite asks {self.samples} records per set; ask at least 2")

    @property
    def tasks(self) -> tuple[Asked, ...]:
        """All that is asked, in the order of tables and files: held-out, then the stream."""
        return self.held_out + self.stream

    @property
    def held_out_names(self) -> tuple[str, ...]:
        """The held-out columns of tables."""
        return tuple(asked.name for asked in self.held_out)

    @property
    def stream_names(self) -> tuple[str, ...]:
        """The stream's columns of tables."""
        return tuple(asked.name for asked in self.stream)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns of tables: held-out, then the stream."""
        return self.held_out_names + self.stream_names
