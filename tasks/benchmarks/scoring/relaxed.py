"""Relaxed accuracy: a number may be 5 % off, anything else has to be the same. Methani et al., PlotQA, WACV 2020; Masry et al., ChartQA,
Findings of ACL 2022, end of section 5.1.

The papers leave the reading of numbers to the reader. Here it is that of the implementation in common use (Lee et al., Pix2Struct, 2023):
"12%" is 0.12, so it is not 12, and a year is a number like any other, so 2019 counts for 2020. Three things are read better: "1,200" is a
number, "0.0" meets a target of 0, and the comparison is in exact decimals, so that 0.95 is exactly 5 % off 1 and counts.
"""

import re
from decimal import Decimal

from tasks.scoring import normalized

TOLERANCE = Decimal("0.05")
NUMBER = re.compile(r"([-+−]?)((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(e[-+]?\d{1,3})?\s*(%?)", re.IGNORECASE | re.ASCII)


def relaxed_accuracy(response: str, target: str, tolerance: Decimal = TOLERANCE) -> float:
    """1.0 where both are numbers and the response is no more than `tolerance` of the target away, so that a target of zero has to be met
    exactly; where one is no number, 1.0 where the texts are the same, case and spacing aside.
    """
    said, wanted = as_number(response), as_number(target)
    if said is not None and wanted is not None:
        return float(abs(said - wanted) <= tolerance * abs(wanted))
    return float(normalized(response) == normalized(target))


def as_number(text: str) -> Decimal | None:
    """The number that the whole text is: with a sign, thousands separators, a decimal point, an exponent, a percent sign; else None."""
    found = NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    sign, digits, exponent, percent = found.groups()
    value = Decimal(digits.replace(",", "") + (exponent or ""))
    value = value / 100 if percent else value
    return -value if sign in {"-", "−"} else value
