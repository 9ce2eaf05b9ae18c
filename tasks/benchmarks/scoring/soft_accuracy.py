"""VQA's soft accuracy over ten annotators (arXiv 1505.00468, section 3; TextVQA, arXiv 1904.08920): each annotator is left out in turn, an
answer scores min(1, matches among the other nine / 3), and the ten scores are averaged.

So an answer that 0, 1, 2, 3 or more annotators gave scores 0, 0.3, 0.6, 0.9, 1. Answers are compared as the TextVQA evaluation does: VQA's
spelling (`tasks/arrow/answers.py`: no articles, marks or missing apostrophes, number words as digits) after commas and question marks are
dropped and a possessive 's is split off.
"""

from collections import Counter
from collections.abc import Sequence

from tasks.arrow.answers import normalised as vqa_spelling

ENOUGH = 3
"""Annotators who agree with an answer for it to be wholly right."""


def spelled(answer: str) -> str:
    """An answer in the spelling by which answers are compared."""
    return vqa_spelling(answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip())


def soft_accuracy(response: str, answers: Sequence[str]) -> float:
    """How right a response is by the answers of all annotators, from 0 to 1; an empty response is wrong."""
    given = spelled(response)
    if not given or not answers:
        return 0.0
    agreeing, total = sum(spelled(answer) == given for answer in answers), len(answers)
    left_out_agrees = agreeing * min(1.0, (agreeing - 1) / ENOUGH)
    left_out_differs = (total - agreeing) * min(1.0, agreeing / ENOUGH)
    return (left_out_agrees + left_out_differs) / total


def most_given(answers: Sequence[str]) -> str:
    """The answer that most annotators gave; of several, the one that was given first. Empty answers do not count."""
    given = [answer.strip() for answer in answers if answer.strip()]
    return max(Counter(given).items(), key=lambda each: each[1])[0] if given else ""
