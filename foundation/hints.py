"""Name the nearest right word when a user mistypes one."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, or None where nothing is close."""
    by_folded = {name.lower().replace("-", "_"): name for name in known}
    found = get_close_matches(word.lower().replace("-", "_"), by_folded, n=1, cutoff=0.6)
    return by_folded[found[0]] if found else None


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """A sentence for an unknown name: `unknown task 'partiy'; did you mean 'parity'? Known: count, parity, ...`."""
    names = sorted(known)
    close = nearest(word, names)
    hint = f"did you mean {close!r}? " if close else ""
    return f"unknown {kind} {word!r}; {hint}Known: {', '.join(names)}"
