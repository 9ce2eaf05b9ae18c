"""ANLS, the average normalized Levenshtein similarity of Biten et al., Scene Text Visual Question Answering, ICCV 2019:

    s = max over references of (1 - NL if NL < 0.5 else 0),     NL = edit distance / length of the longer text

Response and references are in lower case and with single spaces, as in the DocVQA challenge's evaluation. That script keeps a similarity of
exactly 0.5 (NL = 0.5), which the paper's formula makes 0; here the paper holds.
"""

from collections.abc import Iterable

from tasks.scoring import normalized

THRESHOLD = 0.5


def anls(response: str, references: Iterable[str], threshold: float = THRESHOLD) -> float:
    """The similarity of the response with the nearest reference, 0 where its distance is `threshold` of the longer text or more.

    A response and a reference that are both empty are the same.
    """
    said = normalized(response)
    return max((_similarity(said, normalized(reference), threshold) for reference in references), default=0.0)


def edit_distance(one: str, other: str) -> int:
    """How many characters have to be inserted, deleted or replaced to make one text of the other (Levenshtein).

    Bit-parallel: bit i of `up` (`down`) says that cell i of the column of the usual table is one more (less) than the cell above it. One
    step for each character of `other`. Hyyrö, A bit-vector algorithm for computing Levenshtein and Damerau edit distances, 2003.
    """
    if not one:
        return len(other)
    places: dict[str, int] = {}
    for place, letter in enumerate(one):
        places[letter] = places.get(letter, 0) | 1 << place
    full, last = (1 << len(one)) - 1, 1 << (len(one) - 1)
    up, down, distance = full, 0, len(one)
    for letter in other:
        same = places.get(letter, 0) | down
        diagonal = (((same & up) + up) ^ up) | same
        right = down | (full & ~(diagonal | up))
        left = diagonal & up
        distance += bool(right & last) - bool(left & last)
        right = (right << 1 | 1) & full
        up = (left << 1 & full) | (full & ~(diagonal | right))
        down = diagonal & right
    return distance


def _similarity(said: str, reference: str, threshold: float) -> float:
    if said == reference:
        return 1.0
    longer = max(len(said), len(reference))
    if abs(len(said) - len(reference)) >= threshold * longer:  # the distance is at least the difference of the lengths
        return 0.0
    away = edit_distance(reference, said) / longer
    return 1 - away if away < threshold else 0.0
