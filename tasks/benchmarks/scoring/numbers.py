"""Whether a response gives the right number: its first number, in digits or in English words, equals the answer's.

"seventeen" is 17 and holds no 7; "someone" holds no number; "2.5" is neither 25 nor 2; "1,234" is 1234 and "3." is 3.
"""

from decimal import Decimal

from tasks.files.scoring import first_number

__all__ = ["first_number", "number_equals"]


def number_equals(response: str, answer: str | int) -> float:
    """1.0 where the first number of the response is the answer's, 0.0 where it is another or there is none."""
    wanted = Decimal(answer) if isinstance(answer, int) else first_number(answer)
    return float(wanted is not None and first_number(response) == wanted)
