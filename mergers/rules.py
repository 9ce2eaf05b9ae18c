"""Globs over the names of tensors, of which the first that matches counts: which one that is, and whether each counts for some."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from foundation.errors import ConfigError
from foundation.hints import nearest


def first_match(globs: Sequence[str], tensor: str) -> int | None:
    """The position of the first glob that matches a tensor's name; None if none does. `*` also matches dots; case counts."""
    return next((index for index, pattern in enumerate(globs) if fnmatchcase(tensor, pattern)), None)


def check_rules(globs: Sequence[str], tensors: Sequence[str]) -> None:
    """ConfigError unless every glob counts for a tensor; a closing `*` may be left without."""
    followed = {first_match(globs, tensor) for tensor in tensors}
    for index, pattern in enumerate(globs):
        if index in followed or pattern == "*":
            continue
        matched = next((tensor for tensor in tensors if fnmatchcase(tensor, pattern)), None)
        if matched is not None:
            first = globs[first_match(globs, matched) or 0]
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
