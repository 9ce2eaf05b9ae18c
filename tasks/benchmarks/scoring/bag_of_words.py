"""Free answers compared by their words: word recall over the response's length, F1, and BLEU. Words are lower case, without punctuation."""

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")


@lru_cache(maxsize=1 << 12)
def words(text: str) -> tuple[str, ...]:
    """The words of a text, in order, in lower case; marks inside a word stay ("x-ray", "2.5", "it's")."""
    return tuple(WORD.findall(text.lower()))


def share_found(response: str, reference: str) -> float:
    """Distinct words of the reference that the response holds, divided by the number of words of the response; 0 for an empty one.

    PathVQA's `exact_match` as the LLaVA-Med evaluation computes it. For answers of one word it is plain equality; a longer response is
    punished for every word, a shorter one is not.
    """
    given = words(response)
    return len(set(given) & set(words(reference))) / len(given) if given else 0.0


def f1(response: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words, each counted as often as it stands (arXiv 1606.05250, section 6.1)."""
    given, wanted = words(response), words(reference)
    shared = _shared(given, wanted)
    return 2 * shared / (len(given) + len(wanted)) if shared else 0.0


def bleu(response: str, reference: str, order: int) -> tuple[float, ...]:
    """BLEU-1 to BLEU-`order` of one sentence against one reference: the brevity penalty times the geometric mean of the clipped precisions
    of runs of 1 to n words, without smoothing (Papineni et al. 2002, section 2.3). 0 where no run of one of these lengths is shared.
    """
    given, wanted = words(response), words(reference)
    figures: list[float] = []
    logs, penalty = 0.0, min(0.0, 1 - len(wanted) / len(given)) if given else 0.0
    for length in range(1, order + 1):
        shared = _shared(_runs(given, length), _runs(wanted, length))
        if not shared:
            break
        logs += math.log(shared / (len(given) - length + 1))
        figures.append(min(1.0, math.exp(penalty + logs / length)))
    return (*figures, *[0.0] * (order - len(figures)))


def yes_or_no(text: str) -> str | None:
    """The first word of a text that is yes or no; None where there is none."""
    return next((word for word in words(text) if word in {"yes", "no"}), None)


def _runs(of: Sequence[str], length: int) -> list[Any]:
    """Every run of so many words, in order."""
    return list(of) if length == 1 else list(zip(*(of[start:] for start in range(length)), strict=False))


def _shared(some: Sequence[Any], others: Sequence[Any]) -> int:
    """How many of `some` are among `others`, each counted no more often than it stands there."""
    left = list(others)
    found = 0
    for each in some:
        if each in left:
            left.remove(each)
            found += 1
    return found
