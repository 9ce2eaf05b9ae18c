"""One record, as its file holds it, becomes turns and images. Raises `Unusable` for a record that no example can be made of.

Two forms, told apart by the record itself. LLaVA: `conversations` of {from: human|gpt|system, value}. Messages: `messages` of
{role: user|assistant|system, content}, where content is text or a list of {type: text|image}. Either list may use either pair of words.
Images are named by `image` or `images` (one or a list: a path, bytes, or {bytes, path}) or inside a content list.

Every `<image>` mark stands for one image, in order, and stays in its turn's text; only where all of them open the first question are they
cut, because images without a mark come there anyway. Plain-text messages that hold no mark at all show their images there too.
"""

import re
from dataclasses import dataclass
from typing import Any

from tasks.files.problems import Kind, Unusable
from tasks.task import IMAGE_MARK, Role, Turn

LISTS = ("conversations", "messages")
COLUMNS = ("id", "image", "images", "video", "videos", *LISTS)
"""What is read of a record; all else is left alone."""

ROLES = {"human": Role.USER, "user": Role.USER, "gpt": Role.ASSISTANT, "assistant": Role.ASSISTANT, "system": Role.SYSTEM}
NETWORK = re.compile(r"(?i)(https?|ftp|s3|gs|data):")
LEADING_MARKS = re.compile(rf"(?:\s*{IMAGE_MARK})+\s*")

Picture = str | bytes
"""An image as a record gives it: a path in the image folder, or the file's bytes."""


@dataclass(frozen=True)
class Conversation:
    """A record that is well formed: a question and its answer at the end, one picture for each mark."""

    id: str | None
    turns: tuple[Turn, ...]
    pictures: tuple[Picture, ...]


def read_record(record: Any) -> Conversation:
    """The conversation a record holds. Raises Unusable."""
    if not isinstance(record, dict):
        raise Unusable(Kind.MALFORMED, f"is a {type(record).__name__}, not an object with keys")
    if any(record.get(name) for name in ("video", "videos")):
        raise Unusable(Kind.VIDEO, str(record.get("video") or record.get("videos"))[:80])
    named = [name for name in LISTS if record.get(name)]
    if len(named) != 1:
        what = "both conversations and messages" if named else "no conversations and no messages"
        raise Unusable(Kind.MALFORMED, f"has {what}; its keys are {', '.join(sorted(map(str, record))) or 'none'}"[:200])
    said = record[named[0]]
    if not isinstance(said, list):
        raise Unusable(Kind.MALFORMED, f"{named[0]} is a {type(said).__name__}, not a list of turns")
    column = _column(record)
    spoken = [_turn(each, number) for number, each in enumerate(said, start=1)]
    turns = [turn for turn, _ in spoken]
    _check_order(turns)
    inline = [picture for _, pictures in spoken for picture in pictures]
    pictures = _matched(inline, column, may_be_unmarked=named[0] == "messages" and all(isinstance(_text(each), str) for each in said))
    _check_text(turns, bool(pictures))
    return Conversation(record_id(record), _without_leading_marks(turns, len(pictures)), pictures)


def record_id(record: Any) -> str | None:
    """What a record calls itself, well formed or not."""
    named = record.get("id") if isinstance(record, dict) else None
    return None if named is None else str(named)


def form_of(record: Any) -> str:
    """The name of the form a record has, for a person."""
    if isinstance(record, dict) and record.get("messages"):
        return "messages"
    return "LLaVA conversations" if isinstance(record, dict) and record.get("conversations") else "no known form"


def _text(turn: Any) -> Any:
    """What a turn says: text or a list of parts."""
    if not isinstance(turn, dict):
        return None
    return turn["value"] if turn.get("value") is not None else turn.get("content")


def _turn(turn: Any, number: int) -> tuple[Turn, list[Picture | None]]:
    """A turn and a picture for each of its marks; None where the picture is the next one of the record's column."""
    if not isinstance(turn, dict):
        raise Unusable(Kind.MALFORMED, f"turn {number} is a {type(turn).__name__}, not an object with role and text")
    speaker = turn.get("from") if turn.get("from") is not None else turn.get("role")
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise Unusable(Kind.ROLES, f"turn {number} is by {speaker!r}; known: {', '.join(ROLES)}")
    text, pictures = _spoken(_text(turn), number)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Unusable(Kind.MALFORMED, f"turn {number} holds half a Unicode character") from error
    if pictures and ROLES[speaker] is not Role.USER:
        raise Unusable(Kind.MARKS, f"turn {number}, by {speaker!r}, holds {IMAGE_MARK}; only a question can show an image")
    return Turn(ROLES[speaker], text), pictures


def _spoken(said: Any, number: int) -> tuple[str, list[Picture | None]]:
    """What a turn says as one text with marks, and a picture for each mark."""
    if isinstance(said, str):
        return said, [None] * said.count(IMAGE_MARK)
    if not isinstance(said, list):
        raise Unusable(Kind.MALFORMED, f"turn {number} has no text")
    parts = [_part(part, number) for part in said]
    return "".join(text for text, _ in parts), [picture for _, pictures in parts for picture in pictures]


def _part(part: Any, number: int) -> tuple[str, list[Picture | None]]:
    """A part of a turn as text with marks, and a picture for each mark."""
    if isinstance(part, str):
        return part, [None] * part.count(IMAGE_MARK)
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"], [None] * part["text"].count(IMAGE_MARK)
    if kind in {"image", "image_url"}:
        held = [part[name] for name in ("image", "image_url", "path", "url", "bytes") if part.get(name) is not None]
        return IMAGE_MARK, [_picture(held[0]) if held else None]
    if kind == "video":
        raise Unusable(Kind.VIDEO, f"turn {number}")
    raise Unusable(Kind.MALFORMED, f"turn {number} holds a part of type {kind!r}; known: text with its text, image")


def _column(record: dict[str, Any]) -> list[Picture]:
    """The pictures that the record itself names."""
    named = [name for name in ("image", "images") if record.get(name) not in (None, [], ())]
    if len(named) > 1:
        raise Unusable(Kind.MALFORMED, "has both image and images")
    held = record[named[0]] if named else []
    return [_picture(each) for each in (held if isinstance(held, list) else [held])]


def _picture(held: Any) -> Picture:
    """One picture: a path, bytes, or a mapping that holds one of them."""
    if isinstance(held, dict):
        kept = [held[name] for name in ("bytes", "path", "url") if held.get(name)]
        held = kept[0] if kept else None
    if not held:
        raise Unusable(Kind.MALFORMED, "an image is empty")
    if not isinstance(held, str | bytes):
        raise Unusable(Kind.MALFORMED, f"an image is given as {type(held).__name__}, not as a path or bytes")
    if isinstance(held, str) and NETWORK.match(held):
        raise Unusable(Kind.REMOTE, held[:80])
    return held


def _matched(inline: list[Picture | None], column: list[Picture], may_be_unmarked: bool) -> tuple[Picture, ...]:
    """The pictures in the order in which they are shown: those of bare marks are taken from the column."""
    bare = sum(picture is None for picture in inline)
    if not inline and may_be_unmarked:
        return tuple(column)
    if bare != len(column):
        raise Unusable(Kind.MARKS, f"{_some(bare, IMAGE_MARK + ' mark')} for {_some(len(column), 'image')}")
    rest = iter(column)
    return tuple(next(rest) if picture is None else picture for picture in inline)


def _check_order(turns: list[Turn]) -> None:
    """At most one system turn, first; then user and assistant in turn, the assistant last."""
    opening = int(turns[0].role is Role.SYSTEM)
    for place, turn in enumerate(turns[opening:]):
        wanted = Role.ASSISTANT if place % 2 else Role.USER
        if turn.role is not wanted:
            raise Unusable(Kind.ROLES, f"turn {place + opening + 1} is by the {turn.role}, where the {wanted} should speak")
    if turns[-1].role is not Role.ASSISTANT:
        raise Unusable(Kind.UNANSWERED, f"{_some(len(turns), 'turn')}, the last by the {turns[-1].role}")


def _check_text(turns: list[Turn], shows: bool) -> None:
    """No answer is blank, and no question unless it shows something."""
    for number, turn in enumerate(turns, start=1):
        if turn.text.strip() or turn.role is Role.SYSTEM:
            continue
        if turn.role is Role.ASSISTANT:
            raise Unusable(Kind.EMPTY_ANSWER, f"turn {number}")
        if not shows or any(before.role is Role.USER for before in turns[: number - 1]):
            raise Unusable(Kind.MALFORMED, f"turn {number} asks nothing")


def _without_leading_marks(turns: list[Turn], shown: int) -> tuple[Turn, ...]:
    """The turns, without the marks where all of them open the first question."""
    if not shown:
        return tuple(turns)
    first = next(place for place, turn in enumerate(turns) if turn.role is Role.USER)
    opening = LEADING_MARKS.match(turns[first].text)
    if opening and opening.group().count(IMAGE_MARK) == shown:
        turns[first] = Turn(Role.USER, turns[first].text[opening.end() :])
    return tuple(turns)


def _some(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
