"""The table of scorings a task from files may name. Each compares a response with the answer and gives 0 to 1. Light to import.

`number` reads the first number: in digits ("2.5", "1,234", "-3") or in words ("seventeen", "one hundred and five"). A word counts only
whole, so "someone" holds no one and "seventeen" no seven; a full stop after a number is not part of it.
"""

import re
from collections.abc import Callable
from decimal import Decimal

from tasks.scoring import exact_match, normalized

ONES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
UNITS = {word: value for value, word in enumerate(ONES + TEENS)} | {word: 10 * value for value, word in enumerate(TENS, start=2)}
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
NUMERAL = r"(?<![\w.])[-−]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?![0-9]*(?:st|nd|rd|th)\b)"
TOKEN = re.compile(rf"(?P<numeral>{NUMERAL})|[^\W\d_]+|[.;:!?,]")


def first_number(text: str) -> Decimal | None:
    """The first number in `text`, in digits or in English words; None where there is none."""
    found = list(TOKEN.finditer(text.lower()))
    tokens = [each.group() for each in found]
    for place, token in enumerate(tokens):
        if found[place]["numeral"]:
            return Decimal(token.replace(",", "").replace("−", "-"))
        if token in UNITS or token in SCALES or token == "hundred":
            return Decimal(_in_words(tokens[place:]))
    return None


def number_match(response: str, answer: str) -> float:
    """1.0 where the first numbers of both are equal; 0.0 where one has none."""
    wanted = first_number(answer)
    return float(wanted is not None and first_number(response) == wanted)


def contains(response: str, answer: str) -> float:
    """1.0 where the answer stands in the response as whole words, case and spacing aside. An empty answer is in nothing."""
    wanted = normalized(answer)
    return float(bool(wanted) and re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", normalized(response)) is not None)


SCORINGS: dict[str, Callable[[str, str], float]] = {"exact_match": exact_match, "contains": contains, "number": number_match}


def _in_words(tokens: list[str]) -> int:
    """The value of the longest number in words that `tokens` begin with: thousands from large to small, tens before ones."""
    done, part, last_scale, room = 0, 0, 10**12, 1000
    for place, token in enumerate(tokens):
        if token in UNITS and UNITS[token] < room and (UNITS[token] or place == 0):
            part += UNITS[token]
            room = 10 if UNITS[token] >= 20 else 1
        elif token == "hundred" and part < 100:
            part, room = 100 * max(part, 1), 100
        elif token in SCALES and SCALES[token] < last_scale and (part or place == 0):
            done, part, last_scale, room = done + max(part, 1) * SCALES[token], 0, SCALES[token], 1000
        elif token == "and" and place and tokens[place - 1] in {"hundred", *SCALES} and tokens[place + 1 : place + 2] and room > 1:
            if tokens[place + 1] not in UNITS:
                break
        else:
            break
    return done + part
