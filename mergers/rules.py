"""Whether the rules of a schedule fit the tensors of a model: every glob counts for some, every tensor is covered by one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from foundation.errors import ConfigError
from foundation.hints import nearest

if TYPE_CHECKING:
    from mergers.schedule import Schedule


def check_rules(schedule: Schedule, tensors: Sequence[str]) -> None:
    """ConfigError unless every rule is followed by a tensor; a closing `*` may be left without."""
    followed = {schedule.rule_of(tensor) for tensor in tensors}
    for index, (pattern, _) in enumerate(schedule.rules):
        if index in followed or pattern == "*":
            continue
        matched = next((tensor for tensor in tensors if fnmatchcase(tensor, pattern)), None)
        if matched is not None:
            first = schedule.rules[schedule.rule_of(matched) or 0][0]
            raise ConfigError(
                f"the glob {pattern!r} never counts, because {first!r} stands before it and matches the same tensors, e.g. '{matched}'; "
                "the first that matches counts, so put the narrower one first"
            )
        raise ConfigError(f"the glob {pattern!r} matches none of {len(tensors)} tensors; {likeness(pattern, tensors)}")


def likeness(pattern: str, tensors: Sequence[str]) -> str:
    """What the names look like, and the part of a name most like one of the glob's."""
    parts = {part for tensor in tensors for part in tensor.split(".") if not part.isdigit()}
    words = [word for word in re.split(r"[.*?\[\]!]+", pattern) if word and word not in parts]
    close = next((found for word in words if (found := nearest(word, sorted(parts)))), None)
    looks = ", ".join(f"'{tensor}'" for tensor in tensors[len(tensors) // 2 :][:1])
    return (f"did you mean {close!r}? " if close else "") + f"Names look like {looks}"


def example(pattern: str) -> str:
    """A text that a glob matches, with nothing in it that the glob does not ask for."""
    return re.sub(r"\[!?(.)[^]]*\]", r"\1", pattern).replace("*", "").replace("?", "x")
