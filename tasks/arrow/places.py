"""Where published files lie below a root: the usual place first, then others that are met."""

from collections.abc import Sequence
from pathlib import Path

from foundation.errors import InputError


def first_of(root: Path, names: Sequence[str]) -> Path:
    """The first of several places at which a file is. Raises InputError naming the usual one."""
    found = optional(root, names)
    if found is None:
        others = f" (nor {', '.join(names[1:])})" if len(names) > 1 else ""
        raise InputError(f"{root} has no {names[0]}{others}; put the published file there, or check --root")
    return found


def optional(root: Path, names: Sequence[str]) -> Path | None:
    """The first of several places at which a file is, or None."""
    return next((root / name for name in names if (root / name).is_file()), None)


def image_at(root: Path, names: Sequence[str]) -> str:
    """The first name at which an image is; the first of all where it is at none, so that the report says it."""
    return next((name for name in names if (root / name).is_file()), names[0])
