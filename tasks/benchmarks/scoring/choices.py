"""Multiple choice: how options are shown, and which of them a response chooses. One rule for every benchmark that asks for a letter.

What the model would say is the letter, so the letters are the `choices` of a question: answering by likelihood compares "A", "B", ...; its
response is then one of them, and is scored like a written one.

The published scripts differ: the first character (SEED-Bench, MMStar), the whole response or "A." in front (ScienceQA), a pattern (AI2D).
They agree with each other and with `chosen_option` where a model says its letter first. They part where it does not: a first character
takes "Because of the rain" for B and "A dog" for A, and misses "The answer is B".
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from string import ascii_uppercase

from tasks.benchmarks.rows import Row
from tasks.benchmarks.scoring.letters import chosen_letter

LETTER_ONLY = "Answer with the option's letter from the given choices directly."

EDGE = " \t\r\n.,:;!?\"'`*_()[]{}"
"""What may stand around an answer without being part of it."""

MARK = re.compile(r"(?<![\w'’])(?:\(([A-Z])\)[.:]?|([A-Z])[.:)])(?=\s)")
ARTICLE = re.compile(r"^(?:the|an|a)\s+")
LEAD = re.compile(r"^(?:the\s+)?(?:correct\s+|right\s+)?answer(?:\s+is|\s*:)\s*:?\s*", re.IGNORECASE)


def letters(count: int) -> tuple[str, ...]:
    """The first `count` option letters, from A."""
    return tuple(ascii_uppercase[:count])


def lettered(question: str, options: Sequence[str]) -> str:
    """A question, its options one below the other as "A. a dog", and the request for a letter."""
    shown = (f"{letter}. {option}" for letter, option in zip(letters(len(options)), options, strict=True))
    return "\n".join((question, *shown, LETTER_ONLY))


def option_letter(row: Row, column: str, options: Sequence[str]) -> str:
    """The letter of the option whose number, from 0, is in `column`. Raises InputError, which names the row, where there is no such
    option.
    """
    number = row.whole(column)
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise row.wrong(f"has {len(options)} options; 2 to {len(ascii_uppercase)} can be told apart by a letter")
    if not 0 <= number < len(options):
        raise row.wrong(f"{column} is {number}, and the options are 0 to {len(options) - 1}")
    return ascii_uppercase[number]


def answer_letter(row: Row, column: str, choices: Sequence[str]) -> str:
    """The letter in `column`. Raises InputError, which names the row, for what is none of `choices`."""
    letter = row.said(column).strip(EDGE).upper()
    if letter not in choices:
        raise row.wrong(f"{column} is {row[column]!r}, none of {', '.join(choices)}")
    return letter


def option_score(response: str, answer: str, choices: Sequence[str], question: str) -> float:
    """1.0 where the response chooses the option whose letter is `answer`."""
    return float(chosen_option(response, choices, question) == answer)


def chosen_option(response: str, choices: Sequence[str], question: str) -> str | None:
    """The letter of the option that a response chooses, of `choices`; None where it chooses none. The first of these decides:

    1. it is a letter and nothing else, or the text of one option that `question` shows and nothing else ("The answer is" and an article
       aside), so that "a dog" chooses the dog;
    2. the first letter in it that stands alone and answers (`chosen_letter`);
    3. the text of just one option stands in it as whole words. Of texts inside one another the longest counts.
    """
    bare = response.strip(EDGE)
    if len(bare) == 1:
        letter = bare.upper()
        return letter if letter in choices else None
    options = {letter: text for letter, text in options_in(question).items() if letter in choices}
    said = _plain(LEAD.sub("", bare))
    same = [letter for letter, text in options.items() if text and text == said]
    if len(same) == 1:
        return same[0]
    return chosen_letter(response, choices) or _inside(response, options)


@lru_cache(maxsize=256)
def options_in(question: str) -> Mapping[str, str]:
    """The options that a question shows, by letter, as they are compared: lower case, no article in front, nothing around them.

    They are the longest run of marks A, B, C, ... ("A. ", "B: ", "(C) "); of equals the last. The last option ends with its line. Empty
    where fewer than two are shown.
    """
    marks = list(MARK.finditer(question))
    best: list[re.Match[str]] = []
    for start, first in enumerate(marks):
        run: list[re.Match[str]] = []
        for mark in marks[start:] if _letter(first) == "A" else ():
            if len(run) < len(ascii_uppercase) and _letter(mark) == ascii_uppercase[len(run)]:
                run.append(mark)
        best = run if len(run) >= len(best) else best
    if len(best) < 2:
        return {}
    ends = [mark.start() for mark in best[1:]] + [len(question)]
    texts = [question[mark.end() : end].strip() for mark, end in zip(best, ends, strict=True)]
    texts[-1] = texts[-1].split("\n")[0]
    return {_letter(mark): _plain(text) for mark, text in zip(best, texts, strict=True)}


def shown_letters(question: str, answer: str) -> tuple[str, ...]:
    """The letters of the options that a published question shows in its text; A to D where `answer` is not among them."""
    found = tuple(options_in(question))
    return found if answer in found else letters(4)


def _letter(mark: re.Match[str]) -> str:
    return mark[1] or mark[2]


def _plain(text: str) -> str:
    return ARTICLE.sub("", " ".join(text.lower().split()).strip(EDGE))


def _inside(response: str, options: Mapping[str, str]) -> str | None:
    said = " ".join(response.lower().split())
    held = {letter: text for letter, text in options.items() if text and _has(said, text)}
    longest = [letter for letter, text in held.items() if not any(text != other and _has(other, text) for other in held.values())]
    return longest[0] if len(longest) == 1 else None


def _has(text: str, part: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None
