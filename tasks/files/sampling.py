"""Which records of a file are taken: `all`, `first:N`, `end:N%`, `random:N`, or a range such as `first:10%-first:20%`.

A mark is a place in the file: `first:x` lies x after the beginning, `end:x` lies x before the end. A percentage is rounded up to whole
records, at every place alike, so ranges that share a mark neither overlap nor leave a record out. What cannot be read, or chooses nothing,
is an error: it never becomes `all`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from hashlib import sha256

from foundation.errors import ConfigError

KNOWN = "all, first:N, first:N%, end:N, end:N%, random, random:N, random:N%, or a range such as first:10%-first:20% or first:10%-end:10%"
AMOUNT = re.compile(r"(\d+(?:\.\d+)?)%|(\d+)")


class Side(StrEnum):
    """From which end of the file a mark is counted; RANDOM counts in a shuffled order."""

    FIRST = "first"
    END = "end"
    RANDOM = "random"


@dataclass(frozen=True)
class Amount:
    """So many records, or such a part of all."""

    number: Fraction
    percent: bool

    def of(self, total: int) -> int:
        """How many of `total` records; a percentage is rounded up."""
        return math.ceil(self.number * total / 100) if self.percent else int(self.number)

    def __str__(self) -> str:
        whole = str(self.number) if self.number.denominator == 1 else str(float(self.number))
        return whole + ("%" if self.percent else "")


@dataclass(frozen=True)
class Mark:
    """A place in a file."""

    side: Side
    amount: Amount

    def of(self, total: int) -> int:
        """How many records lie before the mark. May lie outside the file."""
        return total - self.amount.of(total) if self.side is Side.END else self.amount.of(total)

    def __str__(self) -> str:
        return f"{self.side}:{self.amount}"


@dataclass(frozen=True)
class Sampling:
    """A strategy: all records, one mark, or what lies between two marks. Its text is canonical."""

    start: Mark | None = None
    stop: Mark | None = None

    def __str__(self) -> str:
        if self.start is None:
            return "all"
        return str(self.start) if self.stop is None else f"{self.start}-{self.stop}"

    def choose(self, total: int, address: str, where: str) -> Sequence[int]:
        """The chosen record numbers, in the order in which they are taken; `address` is what the random order is drawn from.

        Raises ConfigError, naming `where`, for a strategy that asks for more than there is or for nothing.
        """
        if self.start is None:
            return range(total)
        if self.stop is not None:
            return self._between(self.start.of(total), self.stop.of(total), total, where)
        count = self.start.amount.of(total)
        if not 0 < count <= total:
            raise ConfigError(f"{where}: sampling {str(self)!r} asks for {count:,} of {total:,} records; ask for 1 to {total:,}")
        if self.start.side is Side.RANDOM:
            return shuffled(total, address)[:count]
        return range(count) if self.start.side is Side.FIRST else range(total - count, total)

    def _between(self, start: int, stop: int, total: int, where: str) -> range:
        if not 0 <= start < stop <= total:
            raise ConfigError(
                f"{where}: sampling {str(self)!r} runs from record {start:,} to before record {stop:,} of {total:,}, which is nothing or "
                "leaves the file; let it end after it begins, within the file"
            )
        return range(start, stop)


def parse_sampling(text: object, where: str) -> Sampling:
    """The strategy that `text` names. Raises ConfigError, naming `where`, for text that is no strategy."""
    words = str(text).strip().lower()
    if not isinstance(text, str) or not words:
        raise ConfigError(f"{where}: {text!r} is not a sampling strategy; write {KNOWN}")
    if words == "all":
        return Sampling()
    if words == "random":
        return Sampling(Mark(Side.RANDOM, Amount(Fraction(100), percent=True)))
    marks = [_mark(part, text, where) for part in words.split("-")]
    if len(marks) > 2 or (len(marks) == 2 and Side.RANDOM in {mark.side for mark in marks}):
        raise ConfigError(f"{where}: {text!r} is not a sampling strategy; a range has two marks, each first: or end:. Write {KNOWN}")
    if len(marks) == 1 and marks[0].amount.number == 0:
        raise ConfigError(f"{where}: sampling {text!r} takes no records; ask for at least 1, or leave the file out")
    return Sampling(*marks)


def shuffled(total: int, address: str) -> Sequence[int]:
    """All record numbers in an order that belongs to `address` alone."""
    from array import array

    from numpy.random import PCG64, Generator

    generator = Generator(PCG64(int.from_bytes(sha256(address.encode()).digest()[:16])))
    return array("q", generator.permutation(total).astype("int64").tobytes())


def _mark(part: str, text: str, where: str) -> Mark:
    side, colon, amount = (word.strip() for word in part.partition(":"))
    found = AMOUNT.fullmatch(amount)
    if side not in list(Side) or not colon or found is None:
        raise ConfigError(f"{where}: {text!r} is not a sampling strategy; write {KNOWN}")
    percent = found[1] is not None
    number = Fraction(found[1] or found[2])
    if percent and number > 100:
        raise ConfigError(f"{where}: sampling {text!r} asks for more than 100%; a file gives at most all of its records")
    return Mark(Side(side), Amount(number, percent))
