"""Which letter a response chooses: the first that stands alone and answers.

A capital standing alone answers, except the article "A" and the pronoun "I": these two are words where another word follows on the line,
as in "A bird" (but "A is right", "A because ..." and "A or B" choose A), unless "answer", "option", "choice" or "letter" leads to them
("The answer is A dog"). A small letter answers only where it is all that opens the response ("b", "b. Gadwall"), stands in brackets, or
is led to. Letters inside words, abbreviations ("U.S.") and compounds ("X-ray", "bird's") never do.
"""

import re
from collections.abc import Collection
from string import ascii_uppercase

ALONE = re.compile(r"(?<![^\W_])(?<![.'’-])[A-Za-z](?![^\W_]|['’-][^\W_]|\.[^\W_])")
WORD_FOLLOWS = re.compile(r"[ \t]+(?!(?:and|because|is|or|since)\b)[^\W_]", re.IGNORECASE)
"""A word that may follow the article "A" or the pronoun "I"."""
CLOSES = re.compile(r"\s*$|[)\]}.:,]|\*\*")
LEADS = re.compile(
    r"\b(?:answer|option|choice|letter)(?:\s+is|\s+would\s+be)?(?:\s+(?:option|choice|letter))?\s*[:=]?\s*[(\[{\"'*]*$", re.IGNORECASE
)
WORDS = ("A", "I")
"""Letters that are words too."""


def chosen_letter(response: str, among: Collection[str] = ascii_uppercase) -> str | None:
    """The letter that `response` chooses, as a capital, of those it may choose; None where it chooses none."""
    for found in ALONE.finditer(response):
        letter = found.group().upper()
        if letter in among and _answers(found.group(), response[: found.start()], response[found.end() :]):
            return letter
    return None


def _answers(letter: str, before: str, after: str) -> bool:
    """Whether a letter that stands alone is an answer, by what stands around it."""
    is_word = letter.upper() in WORDS and WORD_FOLLOWS.match(after) is not None
    if LEADS.search(before):
        return letter.isupper() or not is_word
    if letter.isupper():
        return not is_word
    bracketed = before[-1:] in {"(", "[", "{"} and after[:1] in {")", "]", "}"}
    return bracketed or (not before.strip(" \t\n*_\"'`") and CLOSES.match(after) is not None)
