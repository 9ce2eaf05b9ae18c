"""Clock reading: what time does an analogue clock show? Synthetic clocks (timeclock), and clocks cut out of COCO and Open Images photos.

Read from data/{train,test}-*.parquet (AvaXiao/clockreading-time, Jessemel/clockreading-coco, Jessemel/clockreading-openimg) with a column
image, or from train.csv and test.csv with a column image that names files below the directory (images/...); the time is a column time or
label ("3:05"), or two columns hour and minute. The answer is "HH:MM", zero-padded. Score and measures: `both`, hour and minute together
within a minute around the dial (3:59 is 4:00); `hour`; `minute`, whatever the hour (`scoring/clocks.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from foundation.errors import ConfigError
from tasks.benchmarks.benchmark import Question
from tasks.benchmarks.questions import Asked, picture_mark
from tasks.benchmarks.raw import Raw
from tasks.benchmarks.rows import Row
from tasks.benchmarks.scoring.clocks import Time, is_same, is_same_hour, is_same_minute, read_time
from tasks.task import Example, Split

QUESTION = "What time does the clock in this image show?\nAnswer with the time as HH:MM only."
TIMES = ("time", "label")
DIALS = (12, 24)


@dataclass(frozen=True)
class TimeClock:
    """Synthetic clocks. `hours`: 12, on whose dial 12:30 is 00:30, or 24, where it is not."""

    hours: int = 12
    name: ClassVar[str] = "timeclock"
    version: ClassVar[int] = 1
    source: ClassVar[str] = "AvaXiao/clockreading-time"
    max_new_tokens: ClassVar[int] = 32
    macro: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.hours, int) or isinstance(self.hours, bool) or self.hours not in DIALS:
            raise ConfigError(f"benchmark {self.name}: hours is {self.hours!r}; give 12 or 24")

    @property
    def files(self) -> Mapping[Split, tuple[str, ...]]:
        tables = {split: f"data/{split}-*.parquet" for split in (Split.TRAIN, Split.TEST)}
        return {split: (f"{table}|{split}.csv", f"{table}|images/**/*") for split, table in tables.items()}

    def questions(self, raw: Raw, split: Split) -> Sequence[Question]:
        return Asked(raw.rows(self.files[split][:1], ("image",)), _question)

    def score(self, response: str, example: Example) -> float:
        given, right = read_time(response), _right(example)
        return float(given is not None and is_same(given, right, self.hours))

    def measures(self, response: str, example: Example) -> Mapping[str, float]:
        given, right = read_time(response), _right(example)
        if given is None:
            return {"hour": 0.0, "minute": 0.0, "both": 0.0}
        return {
            "hour": float(is_same_hour(given, right, self.hours)),
            "minute": float(is_same_minute(given, right)),
            "both": float(is_same(given, right, self.hours)),
        }


@dataclass(frozen=True)
class CocoClock(TimeClock):
    """Clocks in COCO photos."""

    name: ClassVar[str] = "cococlock"
    source: ClassVar[str] = "Jessemel/clockreading-coco"


@dataclass(frozen=True)
class OpenImagesClock(TimeClock):
    """Clocks in Open Images photos."""

    name: ClassVar[str] = "openimgclock"
    source: ClassVar[str] = "Jessemel/clockreading-openimg"


def _right(example: Example) -> Time:
    right = read_time(example.answer)
    assert right is not None, f"{example.key}: {example.answer!r} was checked when it was read"
    return right


def _question(number: int, row: Row) -> Question:
    image: str | bytes = row.said("image") if isinstance(row["image"], str) else row.picture()
    picture = image if isinstance(image, str) else picture_mark(image)
    return Question(str(number), QUESTION, str(_time(row)), (image,), picture)


def _time(row: Row) -> Time:
    """The time of a row, from one column or two."""
    column = next((name for name in TIMES if name in row), None)
    if column is None and not {"hour", "minute"} <= row.keys():
        raise row.wrong(f"has no column time or label, and no columns hour and minute; its columns are {', '.join(row)}")
    said = row.said(column) if column else f"{row.whole('hour')}:{row.whole('minute'):02d}"
    time = read_time(said)
    if time is None:
        raise row.wrong(f"{column or 'hour and minute'} is {said!r}, not a time of day as 3:05")
    return time
