"""Times on a clock: how they are read from a response, and how far they are apart around the dial.

A time is the first "H:MM" of a response, with am or pm where it says so, or else the first "N o'clock". Apart is measured around the dial,
so 3:59 and 4:00 differ by a minute, as do 11:59 and 12:00; on a dial of 12 hours 12:30 and 00:30 are the same time.
"""

import re
from dataclasses import dataclass

from tasks.files.scoring import UNITS

MINUTES = 60
TOLERANCE = 1
"""Minutes that a reading may be off."""

DIGITAL = re.compile(r"(?<![\d:.])(\d{1,2})\s?:\s?(\d{2})(?!\d)(?::\d{2}(?!\d))?\s*(?:([ap])\.?\s?m\b)?", re.IGNORECASE)
ON_THE_HOUR = re.compile(r"\b(\d{1,2}|[a-z]+)\s*o\s?['’]?\s?clock\b", re.IGNORECASE)


@dataclass(frozen=True)
class Time:
    """An hour from 0 to 23 and a minute from 0 to 59."""

    hour: int
    minute: int

    def __str__(self) -> str:
        return f"{self.hour:02d}:{self.minute:02d}"


def read_time(text: str) -> Time | None:
    """The first time that a text gives; None where it gives none, and where that is no time of day (27:10, 3:75)."""
    if found := DIGITAL.search(text):
        hour, minute, half = int(found[1]), int(found[2]), (found[3] or "").lower()
        if half and not 1 <= hour <= 12:
            return None
        hour = hour % 12 + 12 * (half == "p") if half else hour
        return Time(hour, minute) if hour < 24 and minute < MINUTES else None
    if found := ON_THE_HOUR.search(text):
        word = found[1].lower()
        number = int(word) if word.isdigit() else UNITS.get(word, 24)
        return Time(number, 0) if number < 24 else None
    return None


def apart(one: Time, other: Time, hours: int = 12) -> int:
    """Minutes between two times, the shorter way around a dial of so many hours."""
    dial = hours * MINUTES
    between = (one.hour * MINUTES + one.minute - other.hour * MINUTES - other.minute) % dial
    return min(between, dial - between)


def is_same(one: Time, other: Time, hours: int = 12) -> bool:
    """Whether two times are the same within a minute, hour and minute together: 3:59 is 4:00."""
    return apart(one, other, hours) <= TOLERANCE


def is_same_minute(one: Time, other: Time) -> bool:
    """Whether two times show the same minute within one, whatever the hour: 59 is next to 0."""
    between = (one.minute - other.minute) % MINUTES
    return min(between, MINUTES - between) <= TOLERANCE


def is_same_hour(one: Time, other: Time, hours: int = 12) -> bool:
    """Whether two times show the same hour; also where they are the same within a minute, across the full hour."""
    return (one.hour - other.hour) % hours == 0 or is_same(one, other, hours)
