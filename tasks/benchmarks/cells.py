"""Cells of a published table that several benchmarks read alike: a list of texts, a value as text, a list of images."""

from collections.abc import Mapping
from typing import Any

from tasks.benchmarks.rows import Row


def texts(row: Row, column: str) -> list[str]:
    """The texts of a list, or the one text that stands in its place, without space at their ends; some may be empty.

    Raises InputError where all are, and for what is no text.
    """
    value = row[column]
    given = [value] if isinstance(value, str) else row.listed(column)
    if not all(isinstance(each, str) for each in given) or not any(each.strip() for each in given):
        raise row.wrong(f"{column} is {value!r}, and texts belong there")
    return [each.strip() for each in given]


def answers(row: Row, column: str) -> tuple[str, ...]:
    """The texts of a list that are not empty: all that count as right. Raises InputError where there is none."""
    return tuple(filter(None, texts(row, column)))


def shown(row: Row, column: str) -> str:
    """A text or a number as text. Raises InputError for anything else."""
    value = row[column]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise row.wrong(f"{column} is {value!r}, neither a text nor a number")
    return str(value).strip()


def pictures(row: Row, column: str = "image") -> tuple[bytes, ...]:
    """The encoded images of a list, or the one image in its place. Raises InputError where there is none."""
    value = row[column]
    given: list[Any] = value if isinstance(value, list) else [value]
    contents = [each.get("bytes") if isinstance(each, Mapping) else each for each in given]
    found = tuple(content for content in contents if isinstance(content, bytes) and content)
    if not found or len(found) < len(given):
        raise row.wrong(f"{column} holds {len(found)} images in {len(given)} places")
    return found
