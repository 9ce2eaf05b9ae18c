"""Which entries of a tokenizer's vocabulary are numbers: the set that the counting-bias probe watches. Light to import."""

import re
from dataclasses import dataclass
from typing import Any

from foundation.errors import InputError

SPACE_MARKERS = "Ġ▁Ċ \t\n"
"""How tokenizers write the space before a word (byte-level BPE, SentencePiece), a line break, and spaces themselves."""

UNITS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WRITTEN = frozenset(
    ["zero", *UNITS, *TEENS, *TENS, "hundred", "thousand", "million", "billion"]
    + [f"{tens}{joint}{unit}" for tens in TENS for unit in UNITS for joint in ("-", "")]
)
"""Zero to billion in words, with what stands for twenty-one to ninety-nine where a vocabulary has it as one entry."""

NUMERAL = re.compile(r"[0-9]+(st|nd|rd|th)?|[0-9]+\.[0-9]+|[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")
"""ASCII digits; ordinals (1st); decimals (2.5); thousands (1,000)."""


@dataclass(frozen=True)
class NumberTokens:
    """The number tokens of one vocabulary: ids in rising order, and the entry of each as the vocabulary writes it."""

    ids: tuple[int, ...]
    entries: tuple[str, ...]

    def text(self) -> str:
        """One line per token: id, tab, entry."""
        return "".join(f"{number}\t{entry}\n" for number, entry in zip(self.ids, self.entries, strict=True))


def is_number(entry: str) -> bool:
    """Whether a vocabulary's entry is a number once its space markers are off; letters of either case."""
    text = entry.strip(SPACE_MARKERS).lower()
    return bool(NUMERAL.fullmatch(text)) or text in WRITTEN


def number_tokens(tokenizer: Any) -> NumberTokens:
    """The number tokens of `tokenizer`, special tokens aside. InputError where its vocabulary has none."""
    special = set(tokenizer.all_special_ids)
    found = sorted((number, entry) for entry, number in tokenizer.get_vocab().items() if number not in special and is_number(entry))
    if not found:
        raise InputError(
            f"none of the {len(tokenizer)} entries of the {type(tokenizer).__name__}'s vocabulary is a number such as '3' or 'three'; "
            "use a checkpoint whose tokenizer has numbers"
        )
    return NumberTokens(tuple(number for number, _ in found), tuple(entry for _, entry in found))
